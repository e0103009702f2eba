//! Gives an operator's orders the way an operator does: by the command line, to agents that know nothing of a drill.

use isles_model::RegionName;
use tokio::process::Command;

use crate::control::{Client, ControlError};

/// The most of a command's complaint that is repeated, in characters.
const SAID_CHARS_MAX: usize = 400;

/// The exit code of an order that was taken and is not carried out yet: what comes of it is for the drill to judge.
const ORDERED_NOT_DONE: i32 = 1;

/// What an operator orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Move the right to write there, without losing anything.
    Switchover(RegionName),
    /// Move it back to the primary.
    Failback,
    /// Take a region out of service, or in again.
    Drain {
        /// Which.
        region: RegionName,
        /// Out.
        out: bool,
    },
}

impl Order {
    fn words(&self) -> Vec<&str> {
        match self {
            Self::Switchover(to) => vec!["switchover", to.as_str()],
            Self::Failback => vec!["failback"],
            Self::Drain { region, out: true } => vec!["region", "drain", region.as_str()],
            Self::Drain { region, out: false } => vec!["region", "undrain", region.as_str()],
        }
    }
}

/// Runs `isles` with the lab's spec and waits until it has done what was ordered, or for as long as it waits itself.
pub(crate) async fn order(lab: &Client, order: &Order) -> Result<(), ControlError> {
    let spec = lab.state().await?.spec;
    let mut command = Command::new("/proc/self/exe");
    command.arg("-f").arg(spec).arg("--yes").args(order.words()).kill_on_drop(true);
    command.stdin(std::process::Stdio::null());
    let output = command.output().await.map_err(ControlError::Talk)?;
    if output.status.code().is_some_and(|code| code <= ORDERED_NOT_DONE) {
        return Ok(());
    }
    let said = format!(
        "{} {}",
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    // Its last words say why.
    let skipped = said.chars().count().saturating_sub(SAID_CHARS_MAX);
    let said: String = said.chars().skip(skipped).collect();
    Err(ControlError::Refused(format!("`isles {}` failed: {said}", order.words().join(" "))))
}
