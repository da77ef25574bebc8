//! F7: who answers: policy, prediction, health, money, decisions.

mod chase;
mod continuation;
pub mod decision;
pub mod health;
pub mod money;
pub mod prices;
mod race;
