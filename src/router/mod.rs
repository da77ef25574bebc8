//! F7: who answers: policy, prediction, health, money, decisions.

mod chase;
mod continuation;
pub mod decision;
pub mod health;
mod race;
