//! Anyone's captioned pictures for the training of ediffi.
//!
//! [`open`] reads a folder of pictures ([`Folder`]) or tar shards ([`Shards`]) as a [`Dataset`](ediffi_train::dataset::Dataset). A [`Loader`]
//! makes batches of it: it decodes, cuts and mirrors pictures on several threads, in an [`Order`] that a resumed run keeps, and leaves out
//! what a [`Split`] holds out. [`embeddings`] keeps what encoders made of the captions.

mod buckets;
mod caption;
mod cut;
pub mod embeddings;
pub mod error;
mod file;
mod fingerprint;
mod folder;
mod loader;
mod open;
mod order;
mod permutation;
mod picture;
mod plan;
mod settings;
mod shards;
mod split;
mod table;

pub use error::{Error, Result};
pub use folder::Folder;
pub use loader::{Loader, Said};
pub use open::open;
pub use order::Order;
pub use settings::{AspectBuckets, LoaderSettings};
pub use shards::Shards;
pub use split::{Part, Split};
