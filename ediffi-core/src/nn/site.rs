//! What a hook sees of one cross-attention layer.

use std::cell::OnceCell;

use tch::{Device, Kind, TchError, Tensor};

use crate::window::Window;

type Result<T> = std::result::Result<T, TchError>;

/// One cross-attention layer at one noise level, as a [`ScoreBias`](super::ScoreBias) sees it. The scores are computed when they are
/// first asked for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Site<'a> {
    /// Noise level of this evaluation.
    pub sigma: f64,
    /// Height of the feature map.
    pub height: i64,
    /// Width of the feature map.
    pub width: i64,
    /// The part of the picture that the feature map shows.
    pub window: Window,
    source: Source<'a>,
}

/// Where the scores come from.
#[derive(Debug)]
enum Source<'a> {
    /// They are there, with those of the other columns if there are any.
    Scores(&'a Tensor, Option<&'a Tensor>),
    /// From the conditional rows of a layer.
    Layer(Layer<'a>),
}

#[derive(Debug)]
struct Layer<'a> {
    q: &'a Tensor,
    k: &'a Tensor,
    /// How many columns, from the first, are text.
    text: i64,
    /// Of all columns if few are not text, else of the text.
    scores: OnceCell<Tensor>,
}

impl<'a> Site<'a> {
    /// A site that shows the whole picture, with these scores of the text columns, of a layer without other columns.
    #[must_use]
    pub fn new(sigma: f64, height: i64, width: i64, scores: &'a Tensor) -> Self {
        Self { sigma, height, width, window: Window::WHOLE, source: Source::Scores(scores, None) }
    }

    /// The same site with these [other scores](Self::other_scores); it does not change that of a layer.
    #[must_use]
    pub fn beside(self, others: &'a Tensor) -> Self {
        let source = match self.source {
            Source::Scores(scores, _) => Source::Scores(scores, Some(others)),
            layer @ Source::Layer(_) => layer,
        };
        Self { source, ..self }
    }

    /// The site of a layer with these queries and keys of the conditional rows. The first `text` columns are text.
    pub(super) fn of_layer(
        sigma: f64,
        (height, width): (i64, i64),
        window: Window,
        (q, k): (&'a Tensor, &'a Tensor),
        text: i64,
    ) -> Self {
        let source = Source::Layer(Layer { q, k, text, scores: OnceCell::new() });
        Self { sigma, height, width, window, source }
    }

    /// The same site in a network that sees a part of the picture.
    #[must_use]
    pub fn showing(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// The shape of the [scores](Self::scores), without computing them: conditional rows, heads, height·width, text columns.
    #[must_use]
    pub fn shape(&self) -> Vec<i64> {
        match &self.source {
            Source::Scores(scores, _) => scores.size(),
            Source::Layer(layer) => {
                let mut shape = layer.q.size();
                if let Some(columns) = shape.last_mut() {
                    *columns = layer.text;
                }
                shape
            }
        }
    }

    /// Where the scores are.
    #[must_use]
    pub fn device(&self) -> Device {
        match &self.source {
            Source::Scores(scores, _) => scores.device(),
            Source::Layer(layer) => layer.q.device(),
        }
    }

    /// q·k / √d of the text columns. Columns are the T5 tokens, then the CLIP text tokens. The layer may write over them after the hook has
    /// answered: keep a copy.
    ///
    /// # Shapes
    /// → f32 [conditional rows, heads, height·width, text columns]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn scores(&self) -> Result<Tensor> {
        match &self.source {
            Source::Scores(scores, _) => Ok(scores.shallow_clone()),
            Source::Layer(layer) => layer.scores()?.f_narrow(-1, 0, layer.text),
        }
    }

    /// q·k / √d of the columns after the text: in eDiff-I's layers the CLIP image where the network takes one, then the null token; in
    /// DeepFloyd's the pixels. Empty for a site that was made without them. As [`scores`](Self::scores) otherwise.
    ///
    /// # Shapes
    /// → f32 [conditional rows, heads, height·width, other columns]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn other_scores(&self) -> Result<Tensor> {
        match &self.source {
            Source::Scores(_, Some(others)) => Ok(others.shallow_clone()),
            Source::Scores(scores, None) => scores.f_narrow(-1, 0, 0),
            Source::Layer(layer) => {
                let others = layer.keys()? - layer.text;
                if layer.is_mostly_text()? {
                    return layer.scores()?.f_narrow(-1, layer.text, others);
                }
                scaled_scores(layer.q, &layer.k.f_narrow(2, layer.text, others)?)
            }
        }
    }

    /// The scores of all columns, if they are no more than twice those of the text: then they are computed together.
    ///
    /// # Shapes
    /// → f32 [conditional rows, heads, height·width, columns]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(super) fn all_scores(&self) -> Result<Option<Tensor>> {
        match &self.source {
            Source::Layer(layer) if layer.is_mostly_text()? => Ok(Some(layer.scores()?.shallow_clone())),
            _ => Ok(None),
        }
    }
}

impl Layer<'_> {
    fn keys(&self) -> Result<i64> {
        Ok(self.k.size4()?.2)
    }

    fn is_mostly_text(&self) -> Result<bool> {
        Ok(self.keys()? <= 2 * self.text)
    }

    fn scores(&self) -> Result<&Tensor> {
        if let Some(scores) = self.scores.get() {
            return Ok(scores);
        }
        let columns = if self.is_mostly_text()? { self.keys()? } else { self.text };
        let scores = scaled_scores(self.q, &self.k.f_narrow(2, 0, columns)?)?;
        Ok(self.scores.get_or_init(|| scores))
    }
}

/// q kᵀ / √d in f32, in one operation.
fn scaled_scores(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let ((rows, heads, queries, d), keys) = (q.size4()?, k.size4()?.2);
    let flat = |x: &Tensor, tokens: i64| x.f_to_kind(Kind::Float)?.f_reshape([rows * heads, tokens, d]);
    let (q, k) = (flat(q, queries)?, flat(k, keys)?.f_transpose(1, 2)?);
    // What is multiplied by 0 and added is not read.
    let nothing = Tensor::f_zeros([1, 1, 1], (Kind::Float, q.device()))?;
    nothing.f_baddbmm(&q, &k, 0.0, (d as f64).powf(-0.5))?.f_view([rows, heads, queries, keys])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_computed_when_they_are_asked_for() {
        let draw = |tokens: i64| Tensor::rand([2, 3, tokens, 8], (Kind::Float, Device::Cpu));
        // Few other columns are computed with the text, many are not.
        for (keys, together) in [(7, 7), (8, 8), (9, 4)] {
            let (q, k) = (draw(6), draw(keys));
            let site = Site::of_layer(1.0, (2, 3), Window::WHOLE, (&q, &k), 4);
            let Source::Layer(layer) = &site.source else { panic!("a layer") };
            assert_eq!((site.shape(), site.device()), (vec![2, 3, 6, 4], Device::Cpu));
            assert!(layer.scores.get().is_none());
            let scores = site.scores().unwrap();
            assert_eq!(layer.scores.get().unwrap().size(), [2, 3, 6, together]);
            assert_eq!(site.all_scores().unwrap().is_some(), keys == together);
            let all = Tensor::cat(&[scores, site.other_scores().unwrap()], -1);
            let expected = q.matmul(&k.transpose(2, 3)) / 8.0_f64.sqrt();
            assert!((all - expected).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
