//! The score bias of paint-with-words, as the network's cross-attention asks for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ediffi_core::nn::{ScoreBias, Site};
use tch::{Device, Tensor};

use crate::layers::{Layers, Set};
use crate::{Binding, Canvas, Error, Result, TextTokens, WeightFunction, Window, bind};

/// A canvas bound to the tokens of a prompt: gives every cross-attention layer its bias.
///
/// One painter serves all layers, steps, experts, tiles and images of a request. It makes A once for each set of regions that
/// act together, size of feature map, and part of the picture.
#[derive(Debug)]
pub struct Painter {
    layers: Layers,
    bindings: Vec<Binding>,
    weight: Arc<dyn WeightFunction>,
    matrices: Mutex<HashMap<Key, Tensor>>,
}

/// What an A belongs to: the regions that act, height and width of the feature map (both, because 64×16 and 16×64 have the
/// same number of pixels), and the bits of the window that it shows.
type Key = (Set, usize, usize, [u64; 4]);

impl Painter {
    /// Binds a canvas to a prompt. `encoders` are the text encoders that the network listens to, in the order of its
    /// columns: T5, then CLIP text.
    ///
    /// # Errors
    /// Those of [`bind`].
    pub fn new(canvas: &Canvas, encoders: &[TextTokens<'_>]) -> Result<Self> {
        let bindings = bind(canvas, encoders)?;
        Ok(Self {
            layers: Layers::new(canvas, &bindings, encoders),
            bindings,
            weight: Arc::new(canvas.strength().clone()),
            matrices: Mutex::default(),
        })
    }

    /// Takes another weight function in place of the canvas's strength.
    #[must_use]
    pub fn with_weight(mut self, weight: impl WeightFunction + 'static) -> Self {
        self.weight = Arc::new(weight);
        self
    }

    /// Which tokens each region was bound to, in the order of the regions.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Number of text columns the scores must have: the tokens of all encoders together.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.layers.columns()
    }

    /// The bias of one layer; see [`ScoreBias::bias`].
    fn score_bias(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
        let (height, width) = self.check_scores(site)?;
        let active = self.layers.active(site.sigma);
        if active == 0 {
            return Ok(None);
        }
        let Some(weight) = self.weight.weight(site.sigma, site.scores)? else {
            return Ok(None);
        };
        let matrix = self.matrix(active, (height, width), site.window, site.scores.device())?;
        Ok(Some(weight.f_mul(&matrix)?))
    }

    /// Height and width of the feature map, once it is known that the scores belong to it and to this prompt.
    fn check_scores(&self, site: &Site<'_>) -> Result<(usize, usize)> {
        let shape = site.scores.size();
        let columns = self.columns() as i64;
        let pixels = site.height.checked_mul(site.width);
        let sides = usize::try_from(site.height).ok().zip(usize::try_from(site.width).ok());
        match (shape.as_slice(), sides) {
            (&[_, _, rows, tokens], Some(sides)) if Some(rows) == pixels && tokens == columns => Ok(sides),
            _ => Err(Error::Scores { shape, height: site.height, width: site.width, columns }),
        }
    }

    /// A as a tensor on `device`.
    ///
    /// # Shapes
    /// The result: `[height * width, columns]`, f32.
    fn matrix(&self, active: Set, (height, width): (usize, usize), window: Window, device: Device) -> Result<Tensor> {
        let edges = [window.top, window.bottom, window.left, window.right].map(f64::to_bits);
        let key: Key = (active, height, width, edges);
        let shape = [height * width, self.columns()].map(|side| side as i64);
        // A thread that died while it held the lock left whole tensors behind: one is put in only when it is finished.
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = matrices.get(&key).filter(|matrix| matrix.device() == device) {
            return Ok(matrix.shallow_clone());
        }
        let matrix = self.layers.matrix(active, window, height, width)?;
        let matrix = Tensor::f_from_slice(&matrix.into_iter().collect::<Vec<f32>>())?.f_view(shape)?;
        let matrix = matrix.f_to_device(device)?;
        matrices.insert(key, matrix.shallow_clone());
        Ok(matrix)
    }
}

impl ScoreBias for Painter {
    /// w·A/√d of the paper for the text columns of the conditional rows, `[rows, heads, height * width, text columns]` in
    /// f32; `None` where the paint is off (weight 0, sigma outside the strength's interval), so that the layer's output is
    /// bit for bit that of an unpainted one.
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Tensor>> {
        Ok(self.score_bias(site)?)
    }
}
