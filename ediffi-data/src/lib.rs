//! Anyone's captioned pictures for the training of ediffi.
//!
//! [`open`] reads a folder of pictures ([`Folder`]) or tar shards ([`Shards`]) as a [`Dataset`](ediffi_train::dataset::Dataset). A [`Loader`]
//! makes batches of it: it decodes, cuts and mirrors pictures on several threads, in an [`Order`] that a resumed run keeps, and leaves out
//! what a [`Split`] holds out. [`embeddings`] keeps what encoders made of the captions.
//!
//! ```
//! use ediffi_data::{Loader, LoaderSettings};
//! use ediffi_train::batch::BatchSource;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let photos = temporary.path();
//! // A picture, and what is said of it.
//! image::RgbImage::from_pixel(60, 40, image::Rgb([200, 30, 30])).save(photos.join("wall.png"))?;
//! std::fs::write(photos.join("wall.txt"), "a red wall")?;
//!
//! let data = ediffi_data::open(&photos.to_string_lossy())?;
//! let loader = Loader::new(data, LoaderSettings { side: 32, batch: 4, flip: true, ..LoaderSettings::default() })?;
//! let batch = loader.batch(0)?;
//! assert_eq!(batch.pictures.size(), [4, 3, 32, 32]);
//! assert_eq!((batch.text[0].caption.as_str(), batch.text[0].size), ("a red wall", (40, 60)));
//! # Ok(())
//! # }
//! ```

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
mod rows;
mod settings;
mod shards;
mod split;
mod table;
mod unpack;

pub use error::{Error, Result};
pub use folder::Folder;
pub use loader::{Loader, Said};
pub use open::open;
pub use order::Order;
pub use settings::{AspectBuckets, LoaderSettings};
pub use shards::Shards;
pub use split::{Part, Split};
