//! What layouts are made of. A part knows no layout.

mod attention;
mod detail;
mod dimensions;
mod embeddings;
mod joint;
mod micro;
mod pixels;
mod resample;
mod resnet;
mod skip;
mod text_pool;
mod time;
mod transformer;
mod trunk;

pub use attention::{CrossAttention, Heads, SelfAttention};
pub(super) use detail::Beside;
pub use detail::{DETAIL, DetailConfig, DetailHead};
pub use dimensions::{Dimensions, Level};
pub use embeddings::{ContextConfig, EmbeddingProjections};
pub use joint::{JointAttention, TEXT_NORM_GROUPS};
pub use micro::{Micro, MicroEmbedding};
pub use resample::{Downsample, Resample, Upsample};
pub use resnet::{Modulation, ResBlock, ResBlockConfig};
pub use skip::{Concat, Push};
pub use text_pool::TextPool;
pub use time::{Sinusoids, TimeEmbedding};
pub use transformer::{TransformerBlock, TransformerConfig, TransformerIn, TransformerOut};
pub use trunk::Trunk;
