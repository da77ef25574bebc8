//! The models of this node: which there are, which are in memory, and the verbs that change that.

pub(super) mod models;
pub(super) mod view;
pub(super) mod work;

pub use view::description;
