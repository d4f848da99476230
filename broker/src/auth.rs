//! Who may: signing keys, the tokens that the gateway makes for itself and its clients, caller identity, Origin and
//! Host. Pure but for [`clock::now`]; verification uses constant-time library code.

pub mod capabilities;
pub mod clock;
pub mod hairpin;
pub mod identity;
pub mod jwks;
pub mod jwt;
pub mod keys;
pub mod origin;
pub mod pool;
pub mod seal;
pub mod session;
pub mod vault;
