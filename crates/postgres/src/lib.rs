//! PostgreSQL between regions: who may write through which door, and how the copies follow.

pub mod gate;
