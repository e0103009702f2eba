//! Shows how far a start has come: a line per part as it becomes ready, with the time since the start.

use std::io::Write as _;

use isles_lab::supervisor::Event;

use crate::{cli::Global, outcome::say};

/// Shows events: as lines for a person, or as JSON for the `isles up --detach` that reads them.
pub(super) struct Progress {
    global: Global,
    for_program: bool,
    timing: bool,
}

impl Progress {
    pub(super) fn new(global: &Global, for_program: bool, timing: bool) -> Self {
        Self { global: global.clone(), for_program, timing }
    }

    /// Shows one event.
    pub(super) fn show(&self, event: &Event) {
        if self.for_program {
            if let Ok(line) = serde_json::to_string(event) {
                say(&line);
            }
            return;
        }
        match event {
            Event::Ready { state } => {
                let (global, timing, state) = (self.global.clone(), self.timing, state.clone());
                tokio::spawn(async move {
                    super::show(&global, timing, &state).await;
                    if !global.quiet && !global.json {
                        eprintln!("Ctrl-C stops the lab.");
                    }
                });
            }
            // Because the command itself ends with the message.
            Event::Failed { .. } => {}
            Event::Note { .. } | Event::Step { .. } | Event::Ended { .. } | Event::Stopped => {
                line(&self.global, event);
            }
        }
    }
}

/// Writes an event to standard error, unless the user wants to see results only.
pub(super) fn line(global: &Global, event: &Event) {
    if global.quiet || global.json {
        return;
    }
    let text = match event {
        Event::Note { text } => format!("  note: {text}"),
        Event::Step { region: Some(region), what, after } => {
            format!("  {:5.1} s  {region}: {what}", after.as_secs_f64())
        }
        Event::Step { region: None, what, after } => format!("  {:5.1} s  {what}", after.as_secs_f64()),
        Event::Ended { region, part, how, tail } => {
            format!("  {region}: {part} {how}; it is started again; the end of its log:\n{tail}")
        }
        Event::Stopped => "The lab is down.".to_owned(),
        Event::Ready { .. } | Event::Failed { .. } => return,
    };
    let _ = writeln!(std::io::stderr(), "{text}");
}
