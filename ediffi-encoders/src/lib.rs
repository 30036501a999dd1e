//! The encoders of eDiff-I (Balaji et al. 2022, §4.2): T5 for the words of a prompt, CLIP for the scene it describes and
//! for the style of a reference picture.
//!
//! [`T5`], [`Clip`] and its halves [`ClipText`] and [`ClipVision`] are opened from folders as they are published
//! (`config.json`, weights as safetensors in one file, shards or variants, and the tokenizer's files) and give the numbers
//! that `transformers` gives, from the token ids of the original tokenizers.
//!
//! ```no_run
//! use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
//! use ediffi_encoders::T5;
//!
//! let runtime = Runtime::new(DeviceChoice::Auto, Precision::Auto)?;
//! let t5 = T5::open("t5-v1_1-xxl".as_ref(), runtime)?;
//! let encoded = t5.encode(&["a red apple left of a cat", "a dog"], 77)?;
//! assert_eq!(encoded.tokens.size(), [2, 77, 4096]);
//! # Ok::<(), ediffi_encoders::Error>(())
//! ```
//!
//! # Which embedding
//!
//! | wanted | take | shape |
//! |---|---|---|
//! | what each word says and how words relate | [`Encoded::tokens`] of [`T5::encode`] | [texts, tokens, d_model] |
//! | the same for a network trained on the padding, too (DeepFloyd IF) | [`T5::encode_with_padding`] | [texts, tokens, d_model] |
//! | what a text looks like, token by token | [`EncodedClip::tokens`] of [`ClipText::encode`] | [texts, tokens, width] |
//! | the same for networks trained on "CLIP skip" | [`EncodedClip::penultimate`] | [texts, tokens, width] |
//! | how well a text fits a picture | [`EncodedClip::pooled`] and [`ClipVision::encode`] | [texts, projection], [pictures, projection] |
//! | the style of a picture | [`ClipVision::encode`] | [pictures, projection] |
//! | what stands where in a picture | [`ClipOutput::tokens`] of [`ClipVisionNetwork::outputs`] | [pictures, 1 + patches, width] |
//!
//! Embeddings are f32 and not normalised: divide by their length before taking cosines. With the embeddings come the mask, the
//! characters of the original text that each token stands for ([`Encoded::spans`]), and the end of a text that did not fit
//! ([`Encoded::truncated`]).
//!
//! # Memory
//!
//! Weights are read once, tensor by tensor, straight to their device and precision. So reading a model takes
//! hardly more memory than the model. Drop an encoder when its texts are encoded. [`Encoded::save`] writes embeddings to a file
//! with the [`Fingerprint`] of the model that made them ([`T5::model`], [`Clip::model`]). [`T5::fingerprint`] finds that of a
//! folder without loading the model.
//!
//! # Networks
//!
//! The networks ([`T5Network`], [`ClipTextNetwork`], [`ClipVisionNetwork`]) are built from a
//! [`Scope`](ediffi_core::weights::Scope), like every network of ediffi. So they can be trained as well as loaded.
//!
//! # The hub
//!
//! With the feature `hub`, `T5::from_hub("org/name", runtime)` and `Clip::from_hub` download the files that they need from the
//! Hugging Face hub. The fingerprint of such a model has the name of its repository.

mod batch;
mod cache;
pub mod clip;
mod encoded;
pub mod error;
mod fingerprint;
#[cfg(feature = "hub")]
pub mod hub;
mod picture;
mod picture_error;
mod settings;
pub mod t5;
pub mod tokenizer;
mod watched;

pub use clip::{
    Clip, ClipConfig, ClipOutput, ClipText, ClipTextConfig, ClipTextNetwork, ClipVision, ClipVisionConfig,
    ClipVisionNetwork,
};
pub use encoded::{Encoded, EncodedClip, Padding};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use picture::Picture;
pub use picture_error::{PICTURE_BYTES, PICTURE_SIDE, PictureError};
pub use t5::{T5, T5Config, T5Network, T5Weights};
pub use tokenizer::{TextTokenizer, Tokens};
