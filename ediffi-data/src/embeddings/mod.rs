//! Embeddings of all captions of some data, computed once and kept.
//!
//! A folder holds shards of safetensors, `rows-000000.safetensors` and so on, and `manifest.json`, which says of which data and of which
//! encoders they are. [`Writer`] writes shard after shard: each is whole or not there, so a killed program goes on with the first that is missing.
//! [`Embeddings`] reads the row of a sample. Data or encoders of another fingerprint are refused by name.
//!
//! ```
//! use ediffi_data::embeddings::{Embeddings, Kept, Writer};
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> ediffi_data::Result<()> {
//! # let temporary = tempfile::tempdir().map_err(|source| ediffi_data::Error::File { path: "temporary".into(), source })?;
//! # let folder = temporary.path();
//! let kept = Kept { data: "fingerprint of the data".into(), encoder: "t5 ab, clip cd".into(), samples: 5, rows: 2 };
//! let mut writer = Writer::open(folder, &kept)?;
//! while let Some(samples) = writer.pending() {
//!     // What an encoder makes of the captions of these samples: three tokens of width 4, and one vector.
//!     let row = |_| {
//!         let tokens = Tensor::zeros([3, 4], (Kind::BFloat16, Device::Cpu));
//!         let pooled = Tensor::zeros([4], (Kind::Float, Device::Cpu));
//!         vec![("t5".to_owned(), tokens), ("clip_text".to_owned(), pooled)]
//!     };
//!     writer.write(samples.map(row).collect())?;
//! }
//! let embeddings = Embeddings::open(folder, &kept.data, &kept.encoder)?;
//! assert_eq!(embeddings.tensor("t5", 4)?.size(), [3, 4]);
//! # Ok(())
//! # }
//! ```

mod manifest;
mod reader;
mod stored;
mod writer;

pub use manifest::Kept;
pub use reader::Embeddings;
pub use writer::Writer;
