//! What the judge's network should say, and how far off it is (Zhou et al. 2019, "Objects as Points", §3).

use ediffi_core::Result;
use tch::{Kind, Reduction, Tensor};

use super::network::{CELLS, COLOURS, CONCEPTS, Output, STYLES};
use super::scenes::Example;

/// The truth about a batch, as tensors.
#[derive(Debug)]
pub struct Targets {
    /// [n, concepts, 16, 16], 1 at the centres, a Gaussian around each.
    heat: Tensor,
    /// Cells that hold a centre, as positions in [n · 16 · 16]; one an object.
    cells: Tensor,
    /// [objects, 4]
    boxes: Tensor,
    /// Positions among the objects of those with a colour, and the colours.
    coloured: Tensor,
    colours: Tensor,
    /// [n]
    styles: Tensor,
    /// [n]
    backgrounds: Tensor,
    objects: usize,
}

impl Targets {
    /// The truth about these examples. Those whose row is in `spoilt` show nothing that can be recognised.
    pub fn new(examples: &[Example], spoilt: &[bool]) -> Result<Self> {
        let (side, maps) = (CELLS as usize, CONCEPTS as usize);
        let area = side * side;
        let mut heat = vec![0.0_f32; examples.len() * maps * area];
        let (mut cells, mut boxes, mut coloured, mut colours) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, example) in examples.iter().enumerate() {
            if spoilt.get(row).copied().unwrap_or(false) {
                continue;
            }
            for object in &example.objects {
                let (x, y) = (object.x * side as f32, object.y * side as f32);
                let cell = |v: f32| (v.max(0.0) as usize).min(side - 1);
                let (column, line) = (cell(x), cell(y));
                if let Some(colour) = object.colour {
                    coloured.push(cells.len() as i64);
                    colours.push(colour as i64);
                }
                cells.push((row * area + line * side + column) as i64);
                boxes.extend([
                    x - column as f32,
                    y - line as f32,
                    object.width.max(0.01).ln(),
                    object.height.max(0.01).ln(),
                ]);
                // A Gaussian about the centre's cell, an eighth of the object wide.
                let spread = (object.width.max(object.height) * side as f32 / 8.0).max(0.6);
                let start = (row * maps + object.concept) * area;
                for (place, value) in heat.iter_mut().skip(start).take(area).enumerate() {
                    let (dx, dy) = ((place % side) as f32 - column as f32, (place / side) as f32 - line as f32);
                    *value = value.max((-(dx * dx + dy * dy) / (2.0 * spread * spread)).exp());
                }
            }
        }
        let classes = |of: fn(&Example) -> i64| examples.iter().map(of).collect::<Vec<_>>();
        let objects = cells.len();
        Ok(Self {
            heat: Tensor::f_from_slice(&heat)?.f_reshape([-1, CONCEPTS, CELLS, CELLS])?,
            cells: Tensor::f_from_slice(&cells)?,
            boxes: Tensor::f_from_slice(&boxes)?.f_reshape([-1, 4])?,
            coloured: Tensor::f_from_slice(&coloured)?,
            colours: Tensor::f_from_slice(&colours)?,
            styles: Tensor::f_from_slice(&classes(|example| example.scene.style as i64))?,
            backgrounds: Tensor::f_from_slice(&classes(|example| example.scene.background.colour() as i64))?,
            objects,
        })
    }

    /// How far off an output is: the heat map's focal loss, the boxes' mean distance, and the cross entropies of the
    /// classes, added up.
    pub fn loss(&self, output: &Output) -> Result<Tensor> {
        let heat = self.focal(&output.heat)?;
        let mut loss = heat
            .f_add(&cross_entropy(&output.style, &self.styles)?.f_mul_scalar(0.5)?)?
            .f_add(&cross_entropy(&output.background, &self.backgrounds)?.f_mul_scalar(0.3)?)?;
        if self.objects > 0 {
            let at = |map: &Tensor, width: i64| -> Result<Tensor> {
                let rows = map.f_permute([0, 2, 3, 1])?.f_reshape([-1, width])?;
                Ok(rows.f_index_select(0, &self.cells)?)
            };
            let apart = at(&output.boxes, 4)?.f_sub(&self.boxes)?.f_abs()?.f_mean(Kind::Float)?;
            loss = loss.f_add(&apart)?;
            let rows = self.cells.f_divide_scalar_mode((CELLS * CELLS) as f64, "floor")?.f_to_kind(Kind::Int64)?;
            let styles = self.styles.f_index_select(0, &rows)?;
            loss = loss.f_add(&cross_entropy(&at(&output.styles, STYLES)?, &styles)?.f_mul_scalar(0.5)?)?;
            if self.coloured.size1()? > 0 {
                let colours = at(&output.colour, COLOURS)?.f_index_select(0, &self.coloured)?;
                loss = loss.f_add(&cross_entropy(&colours, &self.colours)?.f_mul_scalar(0.5)?)?;
            }
        }
        Ok(loss)
    }

    /// The penalty-reduced focal loss of the heat map, α = 2 and β = 4, a mean over the objects (eq. 1).
    fn focal(&self, logits: &Tensor) -> Result<Tensor> {
        let p = logits.f_sigmoid()?;
        let (log_p, log_not) = (logits.f_log_sigmoid()?, logits.f_neg()?.f_log_sigmoid()?);
        let centre = self.heat.f_ge(0.9999)?.f_to_kind(Kind::Float)?;
        let miss = p.f_neg()?.f_add_scalar(1.0)?.f_square()?.f_mul(&log_p)?.f_mul(&centre)?;
        let near = self.heat.f_neg()?.f_add_scalar(1.0)?.f_pow_tensor_scalar(4.0)?;
        let alarm = p.f_square()?.f_mul(&log_not)?.f_mul(&near)?;
        let sum = miss.f_sum(Kind::Float)?.f_add(&alarm.f_sum(Kind::Float)?)?;
        Ok(sum.f_neg()?.f_div_scalar(self.objects.max(1) as f64)?)
    }
}

/// The mean cross entropy of logits, [n, classes], for the right classes, \[n\].
fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    Ok(logits.f_cross_entropy_loss::<&Tensor>(classes, None, Reduction::Mean, -100, 0.0)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;
    use train_icons::background::Background;
    use train_icons::colour::Colour;
    use train_icons::icon_set::IconSet;
    use train_icons::scene::Scene;

    use super::super::network::{FEATURES, STYLES};
    use super::super::scenes::{Layout, Truth};
    use super::*;

    fn example(objects: Vec<Truth>) -> Example {
        let background = Background::Plain(Colour::Pink);
        let scene = Scene { caption: String::new(), style: IconSet::Flat, background, objects: Vec::new() };
        Example { layout: Layout::Free, scene, pixels: Vec::new(), objects }
    }

    fn object() -> Truth {
        Truth { concept: 5, x: 0.4, y: 0.7, width: 0.5, height: 0.25, colour: Some(4) }
    }

    /// The output that says exactly what is true of [`object`] on its own.
    fn perfect() -> Output {
        let options = (Kind::Float, Device::Cpu);
        let map = |channels| Tensor::zeros([1, channels, CELLS, CELLS], options);
        let output = Output {
            heat: map(CONCEPTS) - 12.0,
            boxes: map(4),
            colour: map(COLOURS),
            styles: map(STYLES),
            style: Tensor::from_slice(&[0.0_f32, 20.0, 0.0, 0.0]).reshape([1, STYLES]),
            background: Tensor::zeros([1, COLOURS], options),
            features: Tensor::zeros([1, FEATURES], options),
        };
        let _ = output.background.select(1, 10).fill_(20.0);
        // 0.4 and 0.7 of 16 cells: 0.4 into cell 6, 0.2 into cell 11.
        let set = |map: &Tensor, channel: i64, value: f64| {
            let _ = map.select(1, channel).select(1, 11).select(1, 6).fill_(value);
        };
        set(&output.heat, 5, 12.0);
        for (channel, value) in (0..).zip([0.4, 0.2, 0.5_f64.ln(), 0.25_f64.ln()]) {
            set(&output.boxes, channel, value);
        }
        set(&output.colour, 4, 20.0);
        set(&output.styles, 1, 20.0);
        output
    }

    #[test]
    fn the_truth_has_no_loss_and_everything_else_has() {
        let targets = Targets::new(&[example(vec![object()])], &[false]).unwrap();
        let loss = |change: &dyn Fn(&mut Output)| {
            let mut output = perfect();
            change(&mut output);
            targets.loss(&output).unwrap().double_value(&[])
        };
        let best = loss(&|_| ());
        assert!(best.abs() < 1e-3, "{best}");
        type Change<'a> = &'a dyn Fn(&mut Output);
        let wrong: [(&str, Change<'_>); 6] = [
            ("no object", &|output| output.heat = output.heat.zeros_like() - 12.0),
            ("an object too many", &|output| drop(output.heat.select(1, 9).select(1, 2).select(1, 2).fill_(12.0))),
            ("another box", &|output| output.boxes += 0.5),
            ("another colour", &|output| output.colour = output.colour.flip([1])),
            ("another style of the object", &|output| output.styles = output.styles.flip([1])),
            ("another style of the picture", &|output| output.style = output.style.flip([1])),
        ];
        for (what, change) in wrong {
            assert!(loss(change) > 0.3, "{what}: {}", loss(change));
        }
    }

    #[test]
    fn a_jumble_has_no_objects() {
        let targets = Targets::new(&[example(vec![object()])], &[true]).unwrap();
        let mut output = perfect();
        let found = targets.loss(&output).unwrap().double_value(&[]);
        output.heat = output.heat.zeros_like() - 12.0;
        let none = targets.loss(&output).unwrap().double_value(&[]);
        assert!(none < 1e-3 && found > 1.0, "{none} {found}");
    }
}
