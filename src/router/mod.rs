//! F7: who answers: policy, prediction, health, money, decisions.

pub mod health;
mod race;
