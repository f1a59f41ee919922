"""Several machines as one server: NATS carries between them, PostgreSQL knows the accounts.

docs/cluster.md says what is promised. From below:

* `messages`: what machines say to each other;
* `bus`: NATS, as far as it is needed;
* `streams`: messages to one other machine and back, in order or broken;
* `links`: all that is under way with one other machine;
* `directory`: who is online here, and finding those who are online elsewhere;
* `membership`: how a server becomes a machine of a cluster.
"""
