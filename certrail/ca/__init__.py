"""What CAs other than ACME share, and the CA that lives in a folder."""
