//! Clients of agents that are not ours: older, newer, and hostile ones.

mod fake;
mod hostile;
mod older;
