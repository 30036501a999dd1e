//! The network F: a U-Net that runs the blocks of its layout.

use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Device, Kind, Tensor};

use super::context::{Context, Encoded};
use super::io::Io;
use super::layout::{Body, Layout};
use super::pass::Pass;
use super::stem::{LowRes, first_map, seen};
use crate::conditioning::Conditioning;
use crate::nn::{Around, Conv2d, Painted};
use crate::weights::Scope;
use crate::{Error, Result};

/// The network F of a denoiser.
#[derive(Debug)]
pub struct UNet {
    /// Tells its contexts from those of other networks.
    id: u64,
    io: Io,
    kind: Kind,
    /// The first convolution over the noisy picture, and over the smaller one, where both can be computed apart.
    halves: Option<[Conv2d; 2]>,
    body: Body,
}

impl UNet {
    /// Builds a network from its parameters; it computes in `kind`.
    ///
    /// # Errors
    /// Dimensions that make no network, or parameters that cannot be had.
    pub fn new(scope: Scope<'_>, layout: &dyn Layout, kind: Kind) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        layout.validate()?;
        let (body, io) = (layout.build(scope)?, layout.io());
        let halves = if io.low_res { body.stem.halves(io.channels * body.patch * body.patch)? } else { None };
        Ok(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), io, kind, halves, body })
    }

    /// Its inputs and outputs.
    #[must_use]
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Where the network computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.body.stem.device()
    }

    /// What the network derives from `conditioning` for `rows` pictures, once for a whole generation.
    ///
    /// # Errors
    /// An embedding that the network has no place for, one that it cannot do without, or one of another shape than
    /// [`Io::embeddings`] says.
    pub fn context(&self, conditioning: &Conditioning, rows: i64) -> Result<Context> {
        self.io.check(conditioning)?;
        let smaller = |x: &Tensor| Ok::<_, Error>(LowRes::new(x.f_to_device(self.device())?.f_to_kind(self.kind)?));
        let low_res = conditioning.low_res.as_ref().map(smaller).transpose()?;
        let (keys_values, pooled, mask) = (Vec::new(), None, None);
        let mut context = Context { network: self.id, keys_values, pooled, low_res, text_columns: 0, mask };
        if let Some(source) = &self.body.context {
            let Encoded { pooled, tokens, text_columns, mask } = source.encode(conditioning, rows, self.kind)?;
            let prepare = self.body.blocks.iter().map(|(_, block)| block.prepare(&tokens));
            context.keys_values = prepare.collect::<Result<_>>()?;
            (context.pooled, context.text_columns, context.mask) = (pooled, text_columns, mask);
        }
        Ok(context)
    }

    /// F(x; c_noise, context). The inputs may be on another device; the result is where `x` is.
    ///
    /// # Shapes
    /// `x`: [rows, [`Io::channels`], h, w] f32, `c_noise`: `[rows]` f32 → the shape of `x`, f32; twice the channels from a
    /// network that predicts a [variance](Io::variance)
    ///
    /// # Errors
    /// [`Error::ForeignContext`] for a context that another network made, [`Error::ImageSize`] for a height or width that
    /// is no multiple of [`Io::size_multiple`], or an error of libtorch or of the hook.
    pub fn forward(
        &self,
        x: &Tensor,
        c_noise: &Tensor,
        context: &Context,
        painted: Option<Painted<'_>>,
    ) -> Result<Tensor> {
        self.forward_tapped(x, c_noise, context, painted, |_, _| {})
    }

    /// [`forward`](Self::forward), showing `tap` what every part of the network with a name gives. A map may be written over after it
    /// was shown.
    pub(super) fn forward_tapped(
        &self,
        x: &Tensor,
        c_noise: &Tensor,
        context: &Context,
        painted: Option<Painted<'_>>,
        mut tap: impl FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        if context.network != self.id {
            return Err(Error::ForeignContext);
        }
        let (_, _, height, width) = x.size4()?;
        let multiple = self.io.size_multiple;
        if height < multiple || width < multiple || height % multiple != 0 || width % multiple != 0 {
            return Err(Error::ImageSize { width, height, multiple });
        }
        let (home, device) = (x.device(), self.device());
        let Body { time, time_activation, patch, stem, blocks, norm, activation, out, detail, .. } = &self.body;

        // The noise embedding plus the pooled conditioning, in f32.
        let mut embedding = time.forward(&c_noise.f_to_device(device)?)?;
        tap("time_embedding", &embedding);
        if let Some(pooled) = &context.pooled {
            embedding = embedding.f_add(pooled)?;
        }
        let embedding = time_activation.apply(&embedding)?.f_to_kind(self.kind)?;

        let x = x.f_to_device(device)?.f_to_kind(self.kind)?;
        let low_res = context.low_res.as_ref();
        let seen = detail.as_ref().map(|_| seen(&x, low_res)).transpose()?;
        let mut h = first_map((stem, *patch), self.halves.as_ref(), x, low_res)?;
        tap("conv_in", &h);
        let mut pass = Pass::new(&embedding, context.text_columns, painted);
        pass.mask = context.mask.as_ref();
        for (index, (name, block)) in blocks.iter().enumerate() {
            pass.keys_values = context.keys_values.get(index).and_then(Option::as_ref);
            h = block.forward(h, &mut pass)?;
            if !name.is_empty() {
                tap(name, &h);
            }
        }
        // The steps of bf16 and f16 would show in a picture.
        h = norm.forward_in(&h, &Around { kind: Some(Kind::Float), ..Around::default() })?;
        tap("conv_norm_out", &h);
        let features = activation.apply_to(h)?;
        h = out.forward(&features)?;
        if *patch > 1 {
            h = h.f_pixel_shuffle(*patch)?;
        }
        if let (Some(detail), Some(seen)) = (detail, seen) {
            tap("out", &h);
            h = detail.forward((&seen, &features), h, &mut pass)?;
        }
        Ok(h.f_contiguous()?.f_to_device(home)?)
    }
}
