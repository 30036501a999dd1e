//! The score bias that paint-with-words adds in each cross-attention layer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ediffi_core::nn::{Bias, LowRank, ScoreBias, Site};
use ndarray::Array2;
use tch::{Device, Tensor};

use crate::layers::{Layers, Set};
use crate::layout::energy;
use crate::{Binding, Canvas, Error, LayoutGuidance, Result, TextTokens, WeightFunction, Window, bind};

/// A canvas bound to the tokens of a prompt. It gives every cross-attention layer its bias.
///
/// One painter serves all layers, steps, experts, tiles and images of a request. It computes the matrix A of the paper once
/// for each set of acting regions, size of feature map and part of the picture, and keeps it: pixels of the feature map ×
/// (text columns + phrases painted) numbers each.
#[derive(Debug)]
pub struct Painter {
    layers: Layers,
    bindings: Vec<Binding>,
    weight: Arc<dyn WeightFunction>,
    layout: Option<LayoutGuidance>,
    matrices: Mutex<HashMap<Key, Option<Matrix>>>,
}

/// A of the paper for feature maps of one size.
#[derive(Debug)]
struct Matrix {
    low_rank: LowRank,
    /// [pixels, phrases], weight × mask
    masks: Tensor,
    /// [phrases, text columns]
    tokens: Tensor,
}

/// What a matrix A belongs to: the acting regions, height and width of the feature map, and the bits of its window.
type Key = (Set, usize, usize, [u64; 4]);

impl Painter {
    /// Binds a canvas to a prompt. `encoders` holds the tokens of each text encoder of the network, in the order of its text
    /// columns: T5, then CLIP text.
    ///
    /// # Errors
    /// The errors of [`bind`].
    pub fn new(canvas: &Canvas, encoders: &[TextTokens<'_>]) -> Result<Self> {
        let bindings = bind(canvas, encoders)?;
        Ok(Self {
            layers: Layers::new(canvas, &bindings, encoders),
            bindings,
            weight: Arc::new(canvas.strength().clone()),
            layout: canvas.strength().layout,
            matrices: Mutex::default(),
        })
    }

    /// Uses this weight function instead of the strength of the canvas.
    #[must_use]
    pub fn with_weight(mut self, weight: impl WeightFunction + 'static) -> Self {
        self.weight = Arc::new(weight);
        self
    }

    /// The tokens of each region, in the order of the regions.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The number of text columns that the scores must have: the tokens of all encoders together.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.layers.columns()
    }

    /// The bias of one layer, as [`ScoreBias::bias`] describes it.
    fn score_bias(&self, site: &Site<'_>) -> Result<Option<Bias>> {
        let size = self.check_scores(site)?;
        let active = self.layers.active(site.sigma);
        if active == 0 {
            return Ok(None);
        }
        let Some(matrix) = self.matrix(active, size, site.window, site.device())? else {
            return Ok(None);
        };
        let weight = self.weight.weight(site)?;
        Ok(weight.map(|weight| Bias::LowRank { weight, matrix: matrix.low_rank }))
    }

    /// The energy of one layer with these scores of all columns, as [`ScoreBias::energy`] describes it.
    fn layout_energy(&self, site: &Site<'_>, scores: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
        let Some(scale) = self.layout.and_then(|layout| layout.scale_at(site.sigma)) else { return Ok(None) };
        let (size, active) = (self.check_scores(site)?, self.layers.active(site.sigma));
        let matrix = if active == 0 { None } else { self.matrix(active, size, site.window, site.device())? };
        let Some(Matrix { masks, tokens, .. }) = matrix else { return Ok(None) };
        // What is painted with some weight is painted all the same.
        let masks = masks.f_div(&masks.f_amax([0], true)?)?;
        Ok(Some(energy(scores, bias, &masks, &tokens)?.f_mul_scalar(scale)?))
    }

    /// Checks that the scores have the rows of the feature map and the columns of this prompt. Returns height and width.
    fn check_scores(&self, site: &Site<'_>) -> Result<(usize, usize)> {
        let shape = site.shape();
        let columns = self.columns() as i64;
        let pixels = site.height.checked_mul(site.width);
        let sides = usize::try_from(site.height).ok().zip(usize::try_from(site.width).ok());
        match (shape.as_slice(), sides) {
            (&[_, _, rows, tokens], Some(sides)) if Some(rows) == pixels && tokens == columns => Ok(sides),
            _ => Err(Error::Scores { shape, height: site.height, width: site.width, columns }),
        }
    }

    /// The matrix A on `device`; `None` where nothing is painted.
    ///
    /// # Shapes
    /// The result: `[height * width, columns]`, f32.
    fn matrix(
        &self,
        active: Set,
        (height, width): (usize, usize),
        window: Window,
        device: Device,
    ) -> Result<Option<Matrix>> {
        let edges = [window.top, window.bottom, window.left, window.right].map(f64::to_bits);
        let key: Key = (active, height, width, edges);
        // A poisoned lock still guards whole matrices: each is inserted when it is finished.
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = matrices.get(&key) {
            match matrix {
                Some(matrix) if matrix.low_rank.device() == device => return Ok(Some(matrix.shallow_clone())),
                None => return Ok(None),
                Some(_) => {}
            }
        }
        let matrix = match self.layers.factors(active, window, height, width)? {
            Some([masks, tokens]) => {
                let [masks, tokens] = [tensor(&masks)?.f_to_device(device)?, tensor(&tokens)?.f_to_device(device)?];
                Some(Matrix { low_rank: LowRank::new(&masks, &tokens, device)?, masks, tokens })
            }
            None => None,
        };
        matrices.insert(key, matrix.as_ref().map(Matrix::shallow_clone));
        Ok(matrix)
    }
}

impl Matrix {
    /// A copy that shares storage.
    fn shallow_clone(&self) -> Self {
        let [masks, tokens] = [&self.masks, &self.tokens].map(Tensor::shallow_clone);
        Self { low_rank: self.low_rank.shallow_clone(), masks, tokens }
    }
}

/// The same numbers as a tensor.
fn tensor(numbers: &Array2<f32>) -> Result<Tensor> {
    let (rows, columns) = numbers.dim();
    let flat: Vec<f32> = numbers.iter().copied().collect();
    Ok(Tensor::f_from_slice(&flat)?.f_view([rows as i64, columns as i64])?)
}

impl ScoreBias for Painter {
    /// w·A/√d of the paper for the text columns of the conditional rows. `None` where no region acts, where nothing of the
    /// window is painted, or where the weight is 0: the layer then computes what it would compute without paint, bit for bit.
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        Ok(self.score_bias(site)?)
    }

    fn guides(&self, sigma: f64) -> bool {
        self.layout.is_some_and(|layout| layout.scale_at(sigma).is_some()) && self.layers.active(sigma) != 0
    }

    /// Of every phrase whose region acts, times the scale of layout guidance.
    fn energy(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Tensor>> {
        if !self.guides(site.sigma) {
            return Ok(None);
        }
        // Before the bias asks for them: they are computed once, and with a gradient.
        let scores = Tensor::f_cat(&[site.scores()?, site.other_scores()?], -1)?;
        let bias = || -> ediffi_core::Result<_> { self.score_bias(site)?.map(Bias::into_dense).transpose() };
        Ok(self.layout_energy(site, &scores, tch::no_grad(bias)?.as_ref())?)
    }
}
