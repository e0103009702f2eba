//! The shop over HTTP against a real PostgreSQL, which is stopped, cut off and restarted under it.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod losing;
#[cfg(test)]
mod process;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod selling;
#[cfg(test)]
mod visitor;
