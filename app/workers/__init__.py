"""Several bridge processes behind one port (`http.workers`), for a machine with more cores than one process can use.

A supervisor binds the port and starts the workers; each worker is a whole bridge. With one worker there is no supervisor, and
nothing of this package is imported.

- **One socket.** All workers accept from the supervisor's socket. A connection that nobody has accepted yet is not lost with a
  worker: another one takes it. (With SO_REUSEPORT each worker would have a queue of its own, which dies with it.) Connections are
  shared out evenly (`listening.py`).
- **The supervisor serves nobody.** It answers HAProxy's agent-check for all, adds up `/metrics`, replaces workers that die or
  hang, and hands on the stop signal. It has no store, so it cannot hang with one.
- **Worker 0 leads.** What a replica has once runs there: the calls to the backend and their spool, the looks at backups,
  snapshots and certificates. Its replacement leads again. The state folder is worker 0's; the others have subfolders.
- **Workers share answers as replicas do**, by the shared cache (`tier`). Without it each asks the stores for itself.
- **Metrics are added up here** and not by prometheus-client's multi-process mode: that mode puts every counter into a
  memory-mapped file, takes no function, process or custom collector, and is switched on by the environment before the import.
  Here the counters stay as they are, and are asked for at a scrape.
- **Spawned, not forked**: a supervisor has threads, and a fork copies their locks in whatever state they are.
- **Not on Windows**, where a shared socket needs `select`, which ends at 512 connections: run two services behind HAProxy there.
"""
