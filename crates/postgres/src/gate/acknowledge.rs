//! Says whether the local writer's acknowledgements may reach their clients yet.
//!
//! Set by whoever knows how far the log has been replicated; obeyed by the gates. While it is held, a session of the
//! local writer is given nothing the database says, whatever it is: an acknowledgement may hide in any answer. What a
//! client sees is a statement that takes longer. When the right to write ends meanwhile, the session ends with
//! SQLSTATE 57P01 and an unknown outcome, as every session does that waits for an answer then.

use isles_model::Moment;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// They may pass.
    Open,
    /// They may pass before a moment of the agent's own clock: when whoever sets this falls silent, they stop.
    Until(Moment),
    /// They wait.
    Held,
}

impl Acknowledge {
    /// May an acknowledgement pass at `now`?
    pub(super) fn passes(self, now: Moment) -> bool {
        match self {
            Self::Open => true,
            Self::Until(end) => now < end,
            Self::Held => false,
        }
    }
}
