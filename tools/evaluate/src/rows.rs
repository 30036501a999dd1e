//! Paint for a batch in which every picture has a canvas of its own.

use ediffi::Painter;
use ediffi_core::Result;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use tch::Tensor;

/// The painters of the rows of a batch, in their order.
#[derive(Debug)]
pub struct Rows<'a>(pub &'a [Painter]);

impl ScoreBias for Rows<'_> {
    fn bias(&self, site: &Site<'_>) -> Result<Option<Bias>> {
        let all = site.scores()?;
        let mut rows = Vec::with_capacity(self.0.len());
        for (row, painter) in (0_i64..).zip(self.0) {
            let scores = all.f_narrow(0, row, 1)?;
            let bias = painter.bias(&Site::new(site.sigma, site.height, site.width, &scores).showing(site.window))?;
            rows.push((bias, scores));
        }
        if rows.iter().all(|(bias, _)| bias.is_none()) {
            return Ok(None);
        }
        // A row whose regions are all off stands beside others that are on.
        let whole = |(bias, scores): (Option<Bias>, Tensor)| match bias {
            Some(bias) => bias.into_dense(),
            None => Ok(scores.f_zeros_like()?),
        };
        let rows = rows.into_iter().map(whole).collect::<Result<Vec<_>>>()?;
        Ok(Some(Bias::Dense(Tensor::f_cat(&rows, 0)?)))
    }

    fn guides(&self, sigma: f64) -> bool {
        self.0.iter().any(|painter| painter.guides(sigma))
    }

    fn energy(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
        let (all, beside) = (site.scores()?, site.other_scores()?);
        let mut rows = Vec::with_capacity(self.0.len());
        for (row, painter) in (0_i64..).zip(self.0) {
            let (scores, others) = (all.f_narrow(0, row, 1)?, beside.f_narrow(0, row, 1)?);
            let site = Site::new(site.sigma, site.height, site.width, &scores).showing(site.window).beside(&others);
            rows.extend(painter.energy(&site)?);
        }
        Ok(if rows.is_empty() { None } else { Some(Tensor::f_cat(&rows, 0)?) })
    }
}

#[cfg(test)]
mod tests {
    use ediffi::{Canvas, Region, Strength};
    use ediffi_paint::TextTokens;
    use tch::{Device, Kind};

    use super::*;

    fn painter(left: bool, weight: f64) -> Painter {
        let columns = [Some(0..1), Some(2..5), None];
        let x = if left { 0..2 } else { 2..4 };
        let cat = Region::rectangle("cat", (4, 4), x, 0..4).unwrap();
        let canvas = Canvas::new([cat]).unwrap().with_strength(Strength::new(weight)).unwrap();
        Painter::new(&canvas, &[TextTokens { encoder: "t5", text: "a cat", offsets: &columns }]).unwrap()
    }

    #[test]
    fn every_row_has_the_bias_of_its_own_painter() {
        let scores = Tensor::arange(2 * 16 * 3, (Kind::Float, Device::Cpu)).view([2, 1, 16, 3]);
        let of = |painters: &[Painter]| {
            Rows(painters).bias(&Site::new(3.0, 4, 4, &scores)).unwrap().map(|bias| bias.into_dense().unwrap())
        };
        let both = of(&[painter(true, 0.4), painter(false, 0.4)]).unwrap();
        for (row, left) in [(0, true), (1, false)] {
            let alone = scores.narrow(0, row, 1);
            let expected =
                painter(left, 0.4).bias(&Site::new(3.0, 4, 4, &alone)).unwrap().unwrap().into_dense().unwrap();
            assert_eq!(both.narrow(0, row, 1), expected);
        }
        let one = of(&[painter(true, 0.0), painter(false, 0.4)]).unwrap();
        assert_eq!(one.narrow(0, 0, 1), Tensor::zeros([1, 1, 16, 3], (Kind::Float, Device::Cpu)));
        assert!(of(&[painter(true, 0.0), painter(false, 0.0)]).is_none());
    }
}
