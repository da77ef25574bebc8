//! F7: who answers: policy, prediction, health, money, decisions.

mod chase;
pub mod health;
mod race;
