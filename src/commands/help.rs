//! The text below the options in `--help`: examples and exit statuses.
//!
//! Promises two to four examples for every command that work as written, also when copied from a page: their lines have at most
//! 80 columns, and a backslash continues a line.

pub const TOP: &str = "\
Examples:
  pinwatch demo                                  see it work, without an account
  pinwatch run --set api.key_file=/etc/pinwatch/api-key
  pinwatch submit 9C817C6F8AF3D48F9FE553282AFA2B67 --wait
  pinwatch tail -f | jq 'select(.delivered != true)'

Exit status:
    0  done
    1  failed, or refused for some PINs
    2  the command line or the configuration is wrong
    3  no daemon at the socket
    4  wait, submit --wait: some PIN was not delivered
  124  timed out

With --json, and where stdout is no terminal, what fails is a line on stdout too: \
{\"ok\":false,\"error\":{\"code\":…,\"message\":…}}. Beside those of the socket, codes are usage, no_daemon and failed.";

pub const RUN: &str = "\
Configuration is read from the file, then from the environment (PINWATCH__SECTION__KEY), then from --set. \
SIGTERM stops, SIGHUP reads the configuration anew.

Examples:
  pinwatch run
  pinwatch run --config ./pinwatch.toml --set log.level=debug
  PINWATCH__API__KEY_FILE=./api-key pinwatch run \\
    --set intake.socket=/tmp/pinwatch.sock \\
    --set store.url=sqlite:/tmp/pinwatch.db";

pub const SOCKET: &str = "\
Where every client command looks for the daemon: --socket, else $PINWATCH_SOCKET, else intake.socket of the \
configuration. The daemon need not run.

Examples:
  pinwatch socket
  pinwatch socket --config ./pinwatch.toml
  export PINWATCH_SOCKET=$(pinwatch socket)
  printf '9C817C6F8AF3D48F9FE553282AFA2B67\\n' | nc -NU \"$(pinwatch socket)\"";

pub const TOKEN: &str = "\
Programs on other machines and in containers use the daemon over HTTP, at /v1 of http.listen, each with a token. The \
file http.tokens_file has the names, scopes and SHA-256 of the tokens, never the tokens themselves.

Examples:
  pinwatch token new --name app --scope submit
  TOKEN=$(pinwatch token new --name app --scope submit)";

pub const TOKEN_NEW: &str = "\
Prints the token to stdout, this once, and the line for http.tokens_file to stderr. A reload of the daemon makes it \
valid.

To replace a token without a pause: make a new one of the same name, append its line, reload the daemon, give the \
token to the program; then remove the old line, and reload again.

Examples:
  pinwatch token new --name app --scope submit
  pinwatch token new --name ops --scope admin --json | jq -r .line
  TOKEN=$(pinwatch token new --name app --scope submit)";

pub const BACKUP: &str = "\
Makes a copy as of one moment, reads it back, and only then gives it its name: whatever breaks it off, a file that is \
there stays as it is. The daemon goes on meanwhile. How to restore a backup, and what that costs, is told in \
operations.md. The store of several machines, PostgreSQL, is backed up by pg_dump.

Examples:
  pinwatch backup /var/backups/pinwatch.db
  pinwatch backup --force /var/backups/pinwatch.db
  pinwatch backup /var/backups/pinwatch-$(date +%F).db --json | jq .bytes

Exit status: 1 if there is no backup, with the reason on stderr.";

pub const MIGRATE_STORE: &str = "\
Stop every daemon that uses either store first; it refuses otherwise. The new store comes into being whole or not \
at all, so what was broken off is begun again. A password in a URL can be seen by everybody on the machine: leave it \
out, and put it into the environment's PGPASSWORD or into ~/.pgpass.

Examples:
  pinwatch migrate-store --from sqlite:/var/lib/pinwatch/pinwatch.db \\
    --to 'postgres://pinwatch@db.example/pinwatch?sslmode=verify-full'
  pinwatch migrate-store --to sqlite:/var/lib/pinwatch/pinwatch.db \\
    --from 'postgres://pinwatch@db.example/pinwatch?sslmode=verify-full'";

pub const SUBMIT: &str = "\
Submitting a PIN a second time does no harm: it is a duplicate, and is polled once. In a file, blank lines \
and lines that begin with # are skipped, and what a JSON line says wins over the options.

Examples:
  pinwatch submit 9C817C6F8AF3D48F9FE553282AFA2B67 --reference order-42
  pinwatch submit --file pins.txt --deadline 2h
  psql -Atc 'select pin_id from sent' | pinwatch submit -
  pinwatch submit 9C81 9C82 --wait --timeout 10m || echo \"status $?\"

Exit status: 1 if some PIN was refused; with --wait also 4 if some PIN was not delivered, 124 if time was up.";

pub const WAIT: &str = "\
Survives a restart of the daemon. Delivered is what the API calls delivered or answered; a PIN that was only \
accepted by the operator counts as not delivered, for nobody can know.

Examples:
  pinwatch wait 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch wait 9C81 9C82 9C83 --timeout 5m
  pinwatch wait 9C81 --json | jq -r .status

Exit status: 0 all delivered, 4 some not delivered, 124 time was up, 1 the daemon does not know some PIN.";

pub const SHOW: &str = "\
Examples:
  pinwatch show 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch show 9C81 --json | jq .nextPoll";

pub const LIST: &str = "\
Examples:
  pinwatch list
  pinwatch list --limit 100000 --json | jq -r '.pinId // empty'
  pinwatch list --after TOKEN

With --json, the last line is {\"next\":\"TOKEN\"} if there are more.";

pub const CANCEL: &str = "\
A PIN that has finished already stays as it is, and its outcome is printed.

Examples:
  pinwatch cancel 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch list --limit 1000 --json | jq -r '.pinId // empty' | \\
    xargs pinwatch cancel

Exit status: 1 if the daemon does not know some PIN.";

pub const TAIL: &str = "\
A line is the outcome record that every sink gets. With -f the daemon may restart: no outcome is left out or \
printed twice. What store.retention removed before it could be printed is told on stderr. Where several nodes share \
the PINs, a later tail goes on without a gap from a position, not from a seq.

Examples:
  pinwatch tail
  pinwatch tail -f -n 0
  pinwatch tail --from 1200 --json > outcomes.jsonl
  pinwatch tail --from 0 --positions | jq -r 'select(.position) | .position'";

pub const DEAD_LETTERS: &str = "\
A dead letter is an outcome that a sink refused for good, or did not take within its max_age. It is kept until \
it is replayed or dropped, whatever store.retention says. Other sinks have it all the same.

Examples:
  pinwatch dead-letters list
  pinwatch dead-letters show 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters replay --sink webhook --all
  pinwatch dead-letters drop --sink webhook --seq 42";

pub const DEAD_LETTERS_LIST: &str = "\
Examples:
  pinwatch dead-letters list
  pinwatch dead-letters list --sink webhook --limit 1000 --json | \\
    jq -r 'select(.seq) | [.seq, .pinId, .error] | @tsv'
  pinwatch dead-letters list --after TOKEN

With --json, the last line is {\"next\":\"TOKEN\"} if there are more.";

pub const DEAD_LETTERS_SHOW: &str = "\
What stands alone is a PIN ID, also if it is a number; a seq is given with --seq. A PIN can be a dead letter of \
several sinks: each is shown.

Examples:
  pinwatch dead-letters show 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters show --seq 42 --sink webhook
  pinwatch dead-letters show 9C81 --json | jq .outcome

Exit status: 1 if it is no dead letter.";

pub const DEAD_LETTERS_REPLAY: &str = "\
The sink gets each again, under the same id, as often as it is replayed; what fails again is tried anew and may \
be a dead letter anew. What stands alone is a PIN ID, also if it is a number; a seq is given with --seq.

Examples:
  pinwatch dead-letters replay --sink webhook 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters replay --sink webhook --seq 42,43,50
  pinwatch dead-letters replay --sink webhook --all

Exit status: 1 if some PIN or seq is no dead letter of the sink; --all of none is no failure.";

pub const DEAD_LETTERS_DROP: &str = "\
The sink never gets them; the outcomes themselves stay for store.retention, and \"pinwatch replay\" still finds \
them until then. What stands alone is a PIN ID, also if it is a number; a seq is given with --seq.

Examples:
  pinwatch dead-letters drop --sink webhook 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters drop --sink webhook --seq 42,43,50
  pinwatch dead-letters drop --sink webhook --all

Exit status: 1 if some PIN or seq is no dead letter of the sink; --all of none is no failure.";

pub const REPLAY: &str = "\
The sink gets them once more, under the same id, whether it had them or not; what is still on its way comes \
once. A file gets the lines a second time. If the daemon is killed during a replay, some may come twice. What \
stands alone is a PIN ID, also if it is a number.

Examples:
  pinwatch replay --sink webhook 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch replay --sink webhook --from 1200 --to 1300
  pinwatch show 9C81 --json | jq .outcome.seq

Exit status: 1 if there was nothing to replay for some PIN, or in the range.";

pub const SINKS: &str = "\
Examples:
  pinwatch sinks list
  pinwatch sinks forget old-webhook";

pub const SINKS_LIST: &str = "\
A sink that is not configured any more is listed as long as it has a cursor: outcomes are kept for it.

Examples:
  pinwatch sinks list
  pinwatch sinks list --json | jq -r 'select(.deadLetters > 0) | .name'";

pub const SINKS_FORGET: &str = "\
Outcomes that only this sink lacks need not be kept then, and its dead letters are gone. A sink that is \
configured is refused: take it out of the configuration and restart the daemon first.

Examples:
  pinwatch sinks forget old-webhook
  pinwatch sinks list --json | jq -r 'select(.configured | not) | .name' | \\
    xargs -n 1 pinwatch sinks forget

Exit status: 1 if there is no such sink, or if it is configured.";

pub const STATS: &str = "\
Examples:
  pinwatch stats
  watch pinwatch stats
  pinwatch stats --json | jq .";

pub const NODES: &str = "\
With a store.url of PostgreSQL, any number of daemons share the PINs; each polls those of its slots, of 256. A node \
that is not alive has no lease: the others have taken its slots, or are about to.

Examples:
  pinwatch nodes
  watch pinwatch nodes
  pinwatch nodes --json | jq -r 'select(.alive == false) | .name'

With --json, a last line {\"free\":N} tells how many slots nobody alive holds, if there are any; {\"shared\":false}, that \
this is one machine.";

pub const PING: &str = "\
Examples:
  pinwatch ping
  pinwatch ping --socket /tmp/pinwatch.sock
  pinwatch ping >/dev/null 2>&1 || systemctl status pinwatch";

pub const CHECK_CONFIG: &str = "\
Connects to nothing, changes nothing and prints no secret.

Examples:
  pinwatch check-config
  pinwatch check-config --config ./pinwatch.toml --set api.rate=50
  pinwatch check-config && systemctl reload pinwatch";

pub const DOCTOR: &str = "\
Makes one call to the API, asks the daemon, and looks at the sinks and at what systemd lets the daemon write; changes \
nothing. As root it sees most: the key that systemd hands to the daemon is read from /etc/pinwatch/api-key.

Examples:
  sudo pinwatch doctor
  pinwatch doctor --config ./pinwatch.toml
  pinwatch doctor --json | jq -r 'select(.ok == false) | .what'

Exit status: 0 all is well, 1 something is not, 2 the configuration is wrong.";

pub const DEMO: &str = "\
Starts a simulated API and a daemon in a temporary folder, submits PINs to it, shows how they become final, \
and leaves nothing behind.

Examples:
  pinwatch demo
  pinwatch demo --pins 100 --seed 7";

pub const COMPLETIONS: &str = "\
Examples:
  pinwatch completions bash > /etc/bash_completion.d/pinwatch
  pinwatch completions zsh > ~/.zfunc/_pinwatch
  pinwatch completions fish > ~/.config/fish/completions/pinwatch.fish";

pub const MAN: &str = "\
Examples:
  pinwatch man | man -l -
  pinwatch man --dir /usr/local/share/man/man1";
