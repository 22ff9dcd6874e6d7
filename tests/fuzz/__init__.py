"""Whatever others send is read or refused with a clear error: no crash, no hang, no traceback."""
