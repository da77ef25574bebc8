//! The command line.

mod fetch_bar;
mod inspect;
mod models;
