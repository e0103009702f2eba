//! What all operator's commands do: look, say what would happen, ask, order, follow.
//!
//! Refusing is `isles_agent::foresee`'s affair, moving the right to write the helms'. A command that dies half-way loses
//! nothing: the order stands in the lease store, and the same command finds it there.

mod agents;
mod follow;
pub(crate) mod words;

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Instant,
};

use isles_agent::foresee::{Foresight, Known, foresee};
use isles_model::{Change, OrderRequest, OrdersAnswer, Topology, orders::WHO_BYTES_MAX};
use serde_json::json;

pub(crate) use self::agents::Agents;
use self::{agents::Look, follow::Ended};
use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// Where the agents are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Where {
    /// In production: any agent's configuration; it names the others [default: the lab that runs].
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_config: Option<PathBuf>,
}

/// How an order is given.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// Why; kept in the audit.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Say what would happen and stop.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Where,
}

/// Says what would happen, asks, orders it, and follows it to its end.
pub(crate) fn carry_out(global: &Global, how: &How, change: impl FnOnce(&Topology) -> Change) -> Outcome {
    running::block_on(async {
        let agents = Agents::find(global, &how.place).await?;
        let change = change(&agents.topology);
        let look = agents.look().await;
        let known = Known { topology: &agents.topology, shown: &look.shown, orders: look.orders.as_ref() };
        let plan = foresee(known, &change).map_err(|refusal| {
            let help = refusal.remedy();
            Failure::refused(format!("refused: {refusal}"), help)
        })?;
        show(global, &agents, &look, &plan, &change);
        if plan.done || how.dry_run {
            return end(global, &plan, &change, None, None);
        }
        ask(global, &change)?;
        let request = OrderRequest { change: change.clone(), who: author(), why: how.reason.clone() };
        let ordered = Instant::now();
        let (taken, answer) = agents.order(&request).await?;
        progress(
            global,
            &match answer.entry {
                Some(number) => format!("Ordered through {taken}; audit entry {number}."),
                None => "Ordered before and not done yet: following it.".into(),
            },
        );
        let ended = follow::follow(&agents, &change, &plan, (ordered, &answer)).await;
        end(global, &plan, &change, Some(&answer), Some(&ended))
    })
}

fn show(global: &Global, agents: &Agents, look: &Look, plan: &Foresight, change: &Change) {
    if !global.json && !global.quiet {
        say(words::plan(agents.place(), look, plan, change).trim_end());
    }
}

/// Asks on a terminal; elsewhere `--yes` must have been given.
fn ask(global: &Global, change: &Change) -> Result<(), Failure> {
    if global.yes {
        return Ok(());
    }
    if global.json || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "nobody can be asked here",
            "add --yes to order it, --dry-run to only look",
        ));
    }
    let mut out = std::io::stderr();
    let _ = write!(out, "{}? [y/N] ", words::order(change));
    let _ = out.flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::new)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::message("not ordered", "nothing has changed")),
    }
}

/// Who types this; behind `sudo`, who called it.
fn author() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let who = named("SUDO_USER").or_else(|| named("USER")).or_else(|| named("LOGNAME"));
    let mut who = who.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    while who.len() > WHO_BYTES_MAX {
        who.pop();
    }
    who
}

fn progress(global: &Global, text: &str) {
    if !global.json && !global.quiet {
        say(text);
    }
}

fn end(
    global: &Global,
    plan: &Foresight,
    change: &Change,
    answer: Option<&OrdersAnswer>,
    ended: Option<&Ended>,
) -> Outcome {
    if global.json {
        let (ordered, entry) = (answer.is_some(), answer.and_then(|answer| answer.entry));
        say(&json!({ "order": change, "plan": plan, "ordered": ordered, "audit": entry, "outcome": ended })
            .to_string());
    } else if let Some(ended) = ended {
        say(&words::ended(ended));
    }
    Ok(match ended {
        None | Some(Ended::Done { .. }) => Exit::Done,
        Some(Ended::NotYet { .. } | Ended::Superseded) => Exit::Finding,
    })
}
