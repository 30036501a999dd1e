//! The encoders of eDiff-I (Balaji et al. 2022, §4.2): T5 for the words of a prompt, CLIP for the scene it describes and
//! for the style of a reference picture.
//!
//! [`T5`] and [`Clip`] are opened from folders in the layout of published models (`config.json`, `tokenizer.json`,
//! `model.safetensors` or its shards) and turn texts and pictures into embeddings. The networks behind them
//! ([`T5Network`], [`ClipTextNetwork`], [`ClipVisionNetwork`]) are built from a
//! [`Scope`](ediffi_core::weights::Scope) like every network of ediffi, so they can be trained as well as loaded.

pub mod clip;
mod encoded;
pub mod error;
pub mod t5;
pub mod tokenizer;

pub use clip::{
    Clip, ClipConfig, ClipTextConfig, ClipTextNetwork, ClipTextOutput, ClipVisionConfig, ClipVisionNetwork,
};
pub use encoded::{Encoded, EncodedClip};
pub use error::{Error, Result};
pub use t5::{T5, T5Config, T5Network};
pub use tokenizer::{TextTokenizer, Tokens};
