//! One file a command: its arguments and what it does with them.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod drill;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod failback;
pub(crate) mod failover;
pub(crate) mod ground;
pub(crate) mod init;
pub(crate) mod ledger;
pub(crate) mod logs;
pub(crate) mod maintenance;
pub(crate) mod psql;
pub(crate) mod region;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod schema;
pub(crate) mod sentry;
pub(crate) mod status;
pub(crate) mod switchover;
pub(crate) mod torture;
pub(crate) mod up;

use crate::{
    cli::{Cli, Command},
    outcome::Outcome,
};

/// Runs the command that was typed.
pub(crate) fn run(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Init(args) => init::run(global, args),
        Command::Check(args) => check::run(global, args),
        Command::Explain(args) => explain::run(global, args),
        Command::Schema(args) => schema::run(global, args),
        Command::Doctor(args) => doctor::run(global, args),
        Command::Up(args) => up::run(global, args),
        Command::Down(args) => down::run(global, args),
        Command::Status(args) => status::run(global, args),
        Command::Ledger(args) => ledger::run(global, args),
        Command::Logs(args) => logs::run(global, args),
        Command::Psql(args) => psql::run(global, args),
        Command::Drill(args) => drill::run(global, args),
        Command::Torture(args) => torture::run(global, args),
        Command::Report(args) => report::run(global, args),
        Command::Switchover(args) => switchover::run(global, args),
        Command::Failover(args) => failover::run(global, args),
        Command::Failback(args) => failback::run(global, args),
        Command::Region(args) => region::run(global, args),
        Command::Maintenance(args) => maintenance::run(global, args),
        Command::Audit(args) => audit::run(global, args),
        Command::Agent(args) => agent::run(global, args),
        Command::Replay(args) => replay::run(global, args),
        Command::Sentry => sentry::run(),
        Command::Exec(args) => exec::run(args),
    }
}
