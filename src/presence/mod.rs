//! Which runtimes live, what the dead ones had begun, and how the living ones are woken.

mod bell;
mod live;
mod peers;
mod remains;
mod sidecar;
mod suspects;
mod window;

pub(crate) use bell::{Address, Bell};
pub(crate) use live::Live;
pub(crate) use peers::{PeerRow, Peers};
pub(crate) use remains::Remains;
pub(crate) use sidecar::{BLOCK, Listed, Rules, Sidecar};
pub(crate) use suspects::{Membership, Place, Stray, Suspects};
pub(crate) use window::Window;
