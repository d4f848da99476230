//! Client sessions and the backend sessions that belong to them: the store (`store` over `memory` or `shared`), the opening,
//! closing and addressing of hairpin requests (`opener`, `leg`, `apart`, `hairpin`), the watching of sessions (`watchers`),
//! the calls that may have to be sent once more (`kept`). The token
//! of a client session itself is `auth::session`.

mod alive;
mod apart;
mod asking;
pub mod hairpin;
pub mod kept;
pub mod lease;
pub mod leg;
mod links;
pub mod memory;
mod opened;
pub mod opener;
mod recent;
mod record;
pub mod shared;
pub mod store;
pub mod watchers;
pub mod way;
