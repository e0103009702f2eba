//! What a trial needs of a system: to be reached, broken, mended and asked whether it is whole.

use std::path::PathBuf;

use crate::{case::Case, error::BenchError, session::Login};

/// An app inside the region that writes.
pub(crate) struct Inside {
    /// How it writes.
    pub(crate) login: Login,
    /// The network namespace that it lives in, if it has one.
    pub(crate) namespace: Option<PathBuf>,
}

/// A system under test, running.
pub(crate) trait Contender: Sized {
    /// What is still missing until everything runs and is replicated; an error in words. Remembers who writes.
    async fn survey(&mut self) -> Result<(), String>;

    /// All entry points, as a client outside of every region knows them.
    fn outside(&self) -> Vec<Login>;

    /// The app inside the region that writes.
    fn inside(&self) -> Inside;

    /// Where each copy of the data can be read.
    fn copies(&self) -> Vec<Login>;

    /// Breaks the region that writes. Returns when it is broken, or when the planned move is done.
    async fn inject(&mut self, case: Case) -> Result<(), BenchError>;

    /// Takes the cause of the fault away.
    async fn heal(&mut self, case: Case) -> Result<(), BenchError>;

    /// Where its logs are, for somebody who wants to know more.
    fn logs(&self) -> PathBuf;

    /// Ends all of it.
    async fn stop(self);
}
