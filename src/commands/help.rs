//! The text below the options in `--help`: examples and exit statuses.
//!
//! Promises two to four examples for every command. They work when copied from a page: their lines have at most 80 columns, and a
//! backslash continues a line.

pub const TOP: &str = "\
Examples:
  pinwatch demo                                  try it without an account
  pinwatch run --set api.key_file=/etc/pinwatch/api-key
  pinwatch submit 9C817C6F8AF3D48F9FE553282AFA2B67 --wait
  pinwatch tail -f | jq 'select(.delivered != true)'

Exit status:
    0  done
    1  failed, or refused for some PINs
    2  the command line or the configuration is wrong
    3  no daemon at the socket
    4  wait, submit --wait: a PIN was not delivered
  124  timed out

With --json, and if stdout is not a terminal, an error is also printed as a line on stdout: \
{\"ok\":false,\"error\":{\"code\":…,\"message\":…}}. The codes are those of the socket, and usage, no_daemon and failed.";

pub const RUN: &str = "\
The environment (PINWATCH__SECTION__KEY) overrides the configuration file, and --set overrides both. \
SIGTERM stops the daemon; SIGHUP makes it read the configuration again.

Examples:
  pinwatch run
  pinwatch run --config ./pinwatch.toml --set log.level=debug
  PINWATCH__API__KEY_FILE=./api-key pinwatch run \\
    --set intake.socket=/tmp/pinwatch.sock \\
    --set store.url=sqlite:/tmp/pinwatch.db";

pub const SOCKET: &str = "\
Every client command looks for the daemon at this path: --socket, else $PINWATCH_SOCKET, else intake.socket of the \
configuration. The daemon need not be running.

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
  pinwatch token new --name metrics --scope read";

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
Copies the database as of one moment, reads the copy back, and only then gives it its name: if it is interrupted, an \
existing file stays unchanged. A running daemon continues meanwhile. operations.md explains how to restore a backup, and \
what that costs. Back up a PostgreSQL store with pg_dump.

Examples:
  pinwatch backup /var/backups/pinwatch.db
  pinwatch backup --force /var/backups/pinwatch.db
  pinwatch backup /var/backups/pinwatch-$(date +%F).db --json | jq .bytes

Exit status: 1 if the backup failed, with the reason on stderr.";

pub const MIGRATE_STORE: &str = "\
Stop every daemon that uses either store first; otherwise the command refuses. It creates the new store completely or \
not at all: if it is interrupted, run it again. Everybody on the machine can see a password in a URL: leave it \
out, and put it into the environment variable PGPASSWORD or into ~/.pgpass.

Examples:
  pinwatch migrate-store --from sqlite:/var/lib/pinwatch/pinwatch.db \\
    --to 'postgres://pinwatch@db.example/pinwatch?sslmode=verify-full'
  pinwatch migrate-store --to sqlite:/var/lib/pinwatch/pinwatch.db \\
    --from 'postgres://pinwatch@db.example/pinwatch?sslmode=verify-full'";

pub const SUBMIT: &str = "\
Submitting a PIN a second time does no harm: it is a duplicate, and is polled only once. In a file, blank lines \
and lines that begin with # are skipped, and a JSON line overrides the options.

Examples:
  pinwatch submit 9C817C6F8AF3D48F9FE553282AFA2B67 --reference order-42
  pinwatch submit --file pins.txt --deadline 2h
  psql -Atc 'select pin_id from sent' | pinwatch submit -
  pinwatch submit 9C81 9C82 --wait --timeout 10m || echo \"status $?\"

Exit status: 1 if a PIN was refused; with --wait also 4 if a PIN was not delivered, 124 if it timed out.";

pub const WAIT: &str = "\
Continues to wait when the daemon restarts. A PIN is delivered if the API says that it was delivered or answered. If \
only the operator accepted it, it counts as not delivered, because nobody can know.

Examples:
  pinwatch wait 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch wait 9C81 9C82 9C83 --timeout 5m
  pinwatch wait 9C81 --json | jq -r .status

Exit status: 0 all delivered, 4 some not delivered, 124 timed out, 1 the daemon does not know a PIN.";

pub const SHOW: &str = "\
Examples:
  pinwatch show 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch show order-42
  pinwatch show 9C81 --json | jq .nextPoll

Of several PINs with the same reference, the newest is shown and the others are named: those in flight first, at most 100. With \
--json, the last line is then {\"others\":[ID,…]}.

Exit status: 1 if there is no such PIN.";

pub const LIST: &str = "\
Examples:
  pinwatch list
  pinwatch list --limit 100000 --json | jq -r '.pinId // empty'
  pinwatch list --reference 'order-4*' --older-than 10m
  pinwatch list --state finished --sink webhook --newer-than 1h

With --json, the last line is {\"next\":\"TOKEN\"} if there are more.";

pub const CANCEL: &str = "\
If a PIN has finished already, nothing changes, and its outcome is printed.

Examples:
  pinwatch cancel 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch cancel --all --reference 'order-4*'
  pinwatch cancel --all --older-than 2h --yes

--all shows how many PINs it affects, and asks; --yes does not ask. A filter matches as of the start of the command: PINs \
submitted later stay. Ctrl-C stops, and says how many are withdrawn.

Exit status: 1 if the daemon does not know a PIN.";

pub const TAIL: &str = "\
A line is the outcome record that every sink gets. With -f no outcome is left out or printed twice, even if the daemon \
restarts. If store.retention removes outcomes before they are printed, stderr says so. If several nodes share \
the PINs, continue a tail from a position, not from a seq, or it may have a gap. -n counts the newest outcomes, whatever \
the filters match.

Examples:
  pinwatch tail
  pinwatch tail -f -n 0
  pinwatch tail --from 1200 --json > outcomes.jsonl
  pinwatch tail --from 0 --positions | jq -r 'select(.position) | .position'";

pub const DEAD_LETTERS: &str = "\
A dead letter is an outcome that is no longer delivered to a sink, because the sink refused it or did not accept it within its max_age. It is kept until \
it is replayed or dropped, whatever store.retention says. Other sinks still get the outcome.

Examples:
  pinwatch dead-letters list
  pinwatch dead-letters show 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters replay --sink webhook --all
  pinwatch dead-letters drop --sink webhook --seq 42";

pub const DEAD_LETTERS_LIST: &str = "\
Examples:
  pinwatch dead-letters list --sink webhook --reference 'order-4*'
  pinwatch dead-letters list --sink webhook --limit 1000 --json | \\
    jq -r 'select(.seq) | [.seq, .pinId, .error] | @tsv'
  pinwatch dead-letters list --after TOKEN

With --json, the last line is {\"next\":\"TOKEN\"} if there are more.";

pub const DEAD_LETTERS_SHOW: &str = "\
An argument without an option is a PIN ID, even if it is a number; give a seq with --seq. A PIN can be a dead letter of \
several sinks: each is shown.

Examples:
  pinwatch dead-letters show 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters show --seq 42 --sink webhook
  pinwatch dead-letters show 9C81 --json | jq .outcome

Exit status: 1 if there is no such dead letter.";

pub const DEAD_LETTERS_REPLAY: &str = "\
Each replay delivers the outcome once more, under the same id. If that fails, it is retried and may become a dead letter \
again. An argument without an option is a PIN ID, even if it is a number; give a seq with --seq.

--all shows how many dead letters it affects, and asks; --yes does not ask. Ctrl-C stops, and says how many are done.

Examples:
  pinwatch dead-letters replay --sink webhook 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters replay --sink webhook --seq 42,43,50
  pinwatch dead-letters replay --sink webhook --all
  pinwatch dead-letters replay --sink webhook --all --newer-than 1h --yes

Exit status: 1 if some PIN or seq is no dead letter of the sink; --all of none is no failure.";

pub const DEAD_LETTERS_DROP: &str = "\
The sink never gets them. The outcomes themselves are kept for store.retention, and until then \"pinwatch replay\" finds \
them. An argument without an option is a PIN ID, even if it is a number; give a seq with --seq.

--all shows how many dead letters it affects, and asks; --yes does not ask. Ctrl-C stops, and says how many are done.

Examples:
  pinwatch dead-letters drop --sink webhook 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch dead-letters drop --sink webhook --seq 42,43,50
  pinwatch dead-letters drop --sink webhook --all --state cancelled

Exit status: 1 if some PIN or seq is no dead letter of the sink; --all of none is no failure.";

pub const REPLAY: &str = "\
The sink gets the outcomes once more, under the same id, whether it had them or not; an outcome that is still on its way \
comes once. A file gets the lines a second time. If the daemon is killed during a replay, some may come twice. An \
argument without an option is a PIN ID, even if it is a number.

--all shows how many outcomes it affects, and asks; --yes does not ask. A filter matches as of the start of the command. \
Ctrl-C stops, and says how many are done.

Examples:
  pinwatch replay --sink webhook 9C817C6F8AF3D48F9FE553282AFA2B67
  pinwatch replay --sink webhook --from 1200 --to 1300
  pinwatch replay --sink webhook --all --reference 'order-4*' --newer-than 2d

Exit status: 1 if there was nothing to replay for a PIN, or in the range.";

pub const SINKS: &str = "\
Examples:
  pinwatch sinks list
  pinwatch sinks forget old-webhook";

pub const SINKS_LIST: &str = "\
A sink that is no longer configured is listed as long as it has a cursor: outcomes are kept for it.

Examples:
  pinwatch sinks list
  pinwatch sinks list --json | jq -r 'select(.deadLetters > 0) | .name'";

pub const SINKS_FORGET: &str = "\
The daemon then no longer keeps outcomes for this sink, and deletes its dead letters. A sink that is \
configured is refused: remove it from the configuration and reload the daemon first.

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

pub const LIVE: &str = "\
Keys: q quit, p pause, s sort, / filter, r ask for the PINs again, ? help. It asks the daemon for its statistics once a \
second; for PINs in flight, at the start and with r. If the daemon ends, top says so, and goes on once it is back. \
Colours repeat what words say; NO_COLOR switches them off.

Examples:
  pinwatch top
  pinwatch top --once
  pinwatch top --once --json | jq .pollsPerSecond";

pub const SCHEDULE: &str = "\
A poll costs a request; between polls, nobody knows that a PIN became final. Without learning, polls follow backoff: \
their intervals grow. With schedule.adapt, the daemon learns at which ages PINs become final, and polls there: as often \
as backoff, but sooner (\"sooner\"), or as soon, but less often (\"fewer\"). The daemon learns SMS and \
calls separately.

The table shows, for each schedule, the average polls and delay of a PIN. The delay is the time from the moment a PIN \
becomes final to the poll that reports it, in seconds; a second counts less at a greater age: 1/(1 + age/15 min). Up to \
the age in SEEN UNTIL the numbers rest on enough PINs, above it on a guess. The charts show the polls by age and, below \
them, when PINs become final. In a cluster, each node learns for itself.

Examples:
  pinwatch schedule
  pinwatch schedule --wide                     every age, whole lines
  pinwatch schedule --json | jq '.classes[] | {class, endings, learned}'";

pub const NODES: &str = "\
If store.url names a PostgreSQL, any number of daemons share the PINs. There are 256 slots; each daemon polls the PINs of \
its slots. A node that is not alive has no lease: the others have taken its slots, or are about to.

Examples:
  pinwatch nodes
  watch pinwatch nodes
  pinwatch nodes --json | jq -r 'select(.alive == false) | .name'

With --json there may be one more line: {\"free\":N} is the number of slots that no living node holds, \
and {\"shared\":false} means that this store is not shared.";

pub const PING: &str = "\
Examples:
  pinwatch ping
  pinwatch ping --socket /tmp/pinwatch.sock
  pinwatch ping >/dev/null 2>&1 || systemctl status pinwatch";

pub const PRESETS: &str = "\
A preset describes an API: its address, its path, how it authenticates, and how its answers are read. Set api.preset to its \
name; keys of [api] and [api.answer] override single values. docs/presets.md explains both.

Examples:
  pinwatch presets
  pinwatch presets vonage-verify
  pinwatch demo --preset vonage-verify";

pub const CHECK_CONFIG: &str = "\
Makes no connection, changes nothing and prints no secret.

Examples:
  pinwatch check-config
  pinwatch check-config --config ./pinwatch.toml --set api.rate=50
  pinwatch check-config && systemctl reload pinwatch";

pub const DOCTOR: &str = "\
Makes one call to the API, asks the daemon, and checks the sinks and where systemd lets the daemon write. It changes \
nothing. Run it as root, so that it can check most: it then reads the key that systemd passes to the daemon from \
/etc/pinwatch/api-key.

With --pin it asks the API about a PIN of yours, and shows how each field of the answer is read. Without it, it asks about a \
PIN that no account has.

With --send-test it makes one delivery to a webhook as the daemon would, and no check. The body is a record that begins \
with \"test\":true, of a PIN \"pinwatch-test\" that no account has; it is in no outbox, and needs no daemon.

Examples:
  sudo pinwatch doctor
  pinwatch doctor --config ./pinwatch.toml
  pinwatch doctor --pin 9C817C6F8AF3D48F9FE553282AFA2B67
  sudo pinwatch doctor --send-test webhook
  pinwatch doctor --json | jq -r 'select(.ok == false) | .what'

Exit status: 0 no problem, 1 a problem was found or the test delivery was not accepted, 2 the configuration is wrong \
or has no such sink.";

pub const DEMO: &str = "\
Starts a simulated API and a daemon in a temporary folder, submits PINs to the daemon, shows how they become final, \
and leaves nothing behind.

Examples:
  pinwatch demo
  pinwatch demo --pins 100 --seed 7
  pinwatch demo --preset vonage-verify";

pub const COMPLETIONS: &str = "\
Examples:
  pinwatch completions bash > /etc/bash_completion.d/pinwatch
  pinwatch completions zsh > ~/.zfunc/_pinwatch
  pinwatch completions fish > ~/.config/fish/completions/pinwatch.fish";

pub const MAN: &str = "\
Examples:
  pinwatch man | man -l -
  pinwatch man --dir /usr/local/share/man/man1";
