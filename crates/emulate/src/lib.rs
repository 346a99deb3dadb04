//! A rack on one machine: bricks are network namespaces with real memory servers and agents in them, cables are pairs of virtual
//! devices, and switches are namespaces whose ports the kernel cross-connects (`rackmem-switch`).
//!
//! What a brick's programs send to other bricks can only take the brick's ports. Without a circuit through the switches no page
//! moves. A second net joins every brick with the namespace of the controller, and no two bricks with each other.
//!
//! [`Layout`] says, purely, what a rack file comes to; [`Racks`] builds it and takes it away. It removes only what it made: what it
//! is about to make is on record before it is made, and a name that somebody else has taken is refused.

mod build;
mod error;
mod layout;
mod namespace;
mod programs;
mod racks;

pub use error::EmulateError;
pub use layout::{BRICKS_MAX, BrickPlace, Layout, SwitchPlace};
pub use namespace::enter;
pub use programs::Programs;
pub use racks::{Racks, Standing};
