"""The configuration file: connectors, profiles and endpoints as people write them.

Unknown fields are refused everywhere. What is stored is what these models
dump; what a request works with is a :class:`~certrail.configuration.plan.Plan`,
taken when it is made.
"""
