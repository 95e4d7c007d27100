//! What stands between the network and the routes.

mod admission;
mod connection;
mod observe;
mod phase;

pub use admission::{Keys, admit};
pub use connection::{End, accept};
pub use observe::{Access, Peer, observe};
pub use phase::{Phase, Phases};
