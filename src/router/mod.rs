//! F7: who answers: policy, prediction, health, money, decisions.

mod chase;
mod continuation;
pub mod decision;
pub mod health;
pub mod money;
pub mod names;
pub mod policy;
pub mod prices;
pub mod quality;
mod race;
pub mod request;
pub mod teams;
