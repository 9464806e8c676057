//! PostgreSQL in the guest, and pgbench.

use super::attached::{Attached, Recorded};
use super::figures::{Percentiles, say};
use super::guest::LoadGuest;
use super::host_only::is_held;
use super::{NEIGHBOUR, how_long_flushes_take, neighbour};
use libtest_mimic::Failed;
use vslice_tests::Lab;

const BIN: &str = "/usr/lib/postgresql/15/bin";
const DATA: &str = "/srv/files/data";

/// Transactions of each of two clients: under TCG some 80 a second.
const TRANSACTIONS: u32 = 250;
const CLIENTS: u32 = 2;

/// Writes of its log that are known from both sides at least: of these the host knows the I/O for sure.
const WRITES_MIN: usize = 100;

/// A database with the tables of pgbench, which runs until the guest ends.
fn set_up(guest: &LoadGuest) -> Result<(), Failed> {
    let as_postgres = |line: &str| guest.run(&format!("runuser -u postgres -- {BIN}/{line}"));
    guest.run(&format!("mkdir -p {DATA} && chown postgres {DATA}"))?;
    as_postgres(&format!("initdb -D {DATA} --locale=C -E UTF8 -A trust --no-sync"))?;
    // Commits are flushed by fdatasync, each by itself: no checkpoint comes between, nor autovacuum.
    let options = "-c listen_addresses= -c unix_socket_directories=/tmp -c jit=off -c autovacuum=off \
                   -c checkpoint_timeout=1h";
    as_postgres(&format!("pg_ctl -D {DATA} -l /tmp/postgres.log -w -o '{options}' start"))?;
    as_postgres("pgbench -h /tmp -i -q -s 1 postgres")
}

/// Who in the guest waited for a flush, and because of whom on the host, is said.
pub(super) fn flushes_are_explained(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    set_up(guest)?;
    let beside = Attached::start(lab, &[])?;
    let attached = Attached::start(lab, &["--observe", "--devices", "vdc"])?;
    let neighbour = neighbour(1)?;
    guest.run(&format!(
        "runuser -u postgres -- {BIN}/pgbench -h /tmp -N -c {CLIENTS} -t {TRANSACTIONS} postgres \
         >/run/pgbench.txt"
    ))?;
    drop(neighbour);
    let (recorded, host_only) = (attached.finish()?, beside.finish_host_only()?);
    guest.run(&format!("runuser -u postgres -- {BIN}/pg_ctl -D {DATA} -m fast stop"))?;
    let said = guest.file("/run/pgbench.txt")?;
    for line in said.lines().filter(|line| line.contains("latency") || line.contains("tps")) {
        say(&format!("pgbench: {line}"));
    }
    let flushes = flushes_of_postgres(&recorded)?;
    say(&format!("flushes of PostgreSQL: {}", flushes.words()));
    // Two commits at once are flushed by one of them, so there is at least one flush for two.
    let transactions = usize::try_from(CLIENTS * TRANSACTIONS)?;
    if flushes.count < transactions / 2 {
        return Err(format!("{} flushes of {transactions} transactions", flushes.count).into());
    }
    for line in recorded.page.lines().take(40) {
        say(line);
    }
    // The process's title, and not its name.
    if !recorded.page.contains("postgres: ") {
        return Err("no process of PostgreSQL is named".into());
    }
    is_held("pgbench", &recorded, &host_only, WRITES_MIN)?;
    recorded.blames(NEIGHBOUR, "flush", 1)
}

fn flushes_of_postgres(recorded: &Recorded) -> Result<Percentiles, Failed> {
    let mut flushes = recorded.on("vdc")?;
    let is_of_postgres =
        |name: &str, title: &str| name == "postgres" && title.starts_with("postgres: ");
    flushes.retain(|request| {
        let (name, title) = recorded.who(request);
        request.operation == "flush" && is_of_postgres(name, title)
    });
    how_long_flushes_take("PostgreSQL", flushes.iter());
    Ok(Percentiles::of(flushes.iter().map(super::Observed::latency_ns)))
}
