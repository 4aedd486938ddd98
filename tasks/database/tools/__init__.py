"""mongodump and mongorestore as the other engine, here or on the database's machine over SSH.

Everything that is known of them is from their sources (mongodb/mongo-tools): `common/options/options.go`
(options, the configuration file), `common/signals/signals.go`, `common/progress`, `mongodump/mongodump.go` and
`mongorestore/restore.go` (messages), `mongorestore/ns/ns.go` (patterns).
"""
