"""Several machines as one server: NATS carries between them, PostgreSQL knows the accounts.

docs/cluster.md says what is promised. From below:

* `messages`: what machines say to each other;
* `bus`: NATS, as far as it is needed;
* `links`: all that is under way with one other machine, in order or not at all;
* `directory`: who is online here, and finding those who are online elsewhere.
"""
