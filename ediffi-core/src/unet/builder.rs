//! From a configuration to the list of steps that a network runs.

use super::blocks::{CrossAttention, ResBlock, Resample, SelfAttention, Style, Upsample};
use super::config::{Layout, Level, UNetConfig};
use super::deepfloyd::DeepFloyd;
use super::joint::JointAttention;
use super::network::Step;
use crate::Result;
use crate::nn::Conv2d;
use crate::weights::Scope;

/// Lays out the steps and keeps track of channels, as every layout needs them.
pub(super) struct Builder<'a, 'b> {
    scope: Scope<'a>,
    config: &'b UNetConfig,
    steps: Vec<(String, Step)>,
    channels: i64,
    skips: Vec<i64>,
}

impl<'a, 'b> Builder<'a, 'b> {
    pub(super) fn new(scope: Scope<'a>, config: &'b UNetConfig) -> Self {
        Self { scope, config, steps: Vec::new(), channels: config.width(0), skips: Vec::new() }
    }

    pub(super) fn build(mut self) -> Result<Vec<(String, Step)>> {
        match self.config.layout {
            Layout::Adm => self.adm()?,
            Layout::Efficient => self.efficient()?,
            Layout::DeepFloyd(layout) => self.deepfloyd(layout)?,
        }
        Ok(self.steps)
    }

    fn adm(&mut self) -> Result<()> {
        let levels = &self.config.levels;
        let last = levels.len() - 1;
        self.push();
        for (i, level) in levels.iter().enumerate() {
            for _ in 0..level.blocks {
                self.res(self.config.width(i), Resample::Keep)?;
                self.attention(level)?;
                self.push();
            }
            if i < last {
                self.res(self.config.width(i), Resample::Halve)?;
                self.push();
            }
        }
        self.res(self.config.width(last), Resample::Keep)?;
        if let Some(deepest) = levels.last() {
            self.attention(deepest)?;
        }
        self.res(self.config.width(last), Resample::Keep)?;
        for (i, level) in levels.iter().enumerate().rev() {
            for _ in 0..=level.blocks {
                self.concat(1.0);
                self.res(self.config.width(i), Resample::Keep)?;
                self.attention(level)?;
            }
            if i > 0 {
                self.res(self.config.width(i), Resample::Double)?;
            }
        }
        Ok(())
    }

    fn efficient(&mut self) -> Result<()> {
        let levels = &self.config.levels;
        let last = levels.len() - 1;
        for (i, level) in levels.iter().enumerate() {
            if i > 0 {
                let name = self.name("down");
                let conv = Conv2d::strided(self.scope.at(&name), self.channels, self.config.width(i), 3, 2)?;
                self.channels = self.config.width(i);
                self.steps.push((name, Step::Down(conv)));
            }
            self.level(i, level)?;
            // The deepest level's way up begins where its way down ends: nothing to carry over.
            if i < last {
                self.push();
            }
        }
        for (i, level) in levels.iter().enumerate().rev() {
            if i < last {
                self.concat(std::f64::consts::FRAC_1_SQRT_2);
            }
            self.level(i, level)?;
            if i > 0 {
                let name = self.name("up");
                let conv = Conv2d::new(self.scope.at(&name), self.channels, self.config.width(i - 1), 3)?;
                self.channels = self.config.width(i - 1);
                self.steps.push((name, Step::Up(Upsample(conv))));
            }
        }
        Ok(())
    }

    fn level(&mut self, index: usize, level: &Level) -> Result<()> {
        for _ in 0..level.blocks {
            self.res(self.config.width(index), Resample::Keep)?;
        }
        self.attention(level)
    }

    fn res(&mut self, outputs: i64, resample: Resample) -> Result<()> {
        let name = self.name("res");
        self.styled_res(name, outputs, resample, Style::EDIFFI)
    }

    fn styled_res(&mut self, name: String, outputs: i64, resample: Resample, style: Style) -> Result<()> {
        let block = ResBlock::new(
            self.scope.at(&name),
            (self.channels, outputs),
            self.config.embedding_width,
            self.config.norm,
            resample,
            style,
        )?;
        self.channels = outputs;
        self.steps.push((name, Step::Res(block)));
        Ok(())
    }

    fn attention(&mut self, level: &Level) -> Result<()> {
        let (channels, head, norm) = (self.channels, self.config.head_channels, self.config.norm);
        if level.self_attention {
            let name = self.name("self_attention");
            let layer = SelfAttention::new(self.scope.at(&name), channels, head, norm)?;
            self.steps.push((name, Step::SelfAttention(layer)));
        }
        if let (true, Some(context)) = (level.cross_attention, &self.config.context) {
            let name = self.name("cross_attention");
            let layer = CrossAttention::new(self.scope.at(&name), channels, context.width, head, norm)?;
            self.steps.push((name, Step::CrossAttention(layer)));
        }
        Ok(())
    }

    /// ADM's plan with one kind of attention, and with the names of diffusers.
    fn deepfloyd(&mut self, layout: DeepFloyd) -> Result<()> {
        let levels = &self.config.levels;
        let last = levels.len() - 1;
        let style = |scale| Style {
            activation: layout.activation,
            eps: layout.norm_eps,
            scale,
            names: ["time_emb_proj", "conv_shortcut"],
        };
        let (block, middle) = (style(layout.residual_scale), style(layout.middle_scale));
        self.push();
        for (i, level) in levels.iter().enumerate() {
            for j in 0..level.blocks {
                self.styled_res(format!("down_blocks.{i}.resnets.{j}"), self.config.width(i), Resample::Keep, block)?;
                if level.cross_attention {
                    self.joint(format!("down_blocks.{i}.attentions.{j}"), level.self_attention)?;
                }
                self.push();
            }
            if i < last {
                let name = format!("down_blocks.{i}.downsamplers.0");
                self.styled_res(name, self.config.width(i), Resample::Halve, block)?;
                self.push();
            }
        }
        self.styled_res("mid_block.resnets.0".to_owned(), self.channels, Resample::Keep, middle)?;
        self.joint("mid_block.attentions.0".to_owned(), layout.middle_self_attention)?;
        self.styled_res("mid_block.resnets.1".to_owned(), self.channels, Resample::Keep, middle)?;
        for (up, (i, level)) in levels.iter().enumerate().rev().enumerate() {
            for j in 0..=level.blocks {
                self.concat(1.0);
                self.styled_res(format!("up_blocks.{up}.resnets.{j}"), self.config.width(i), Resample::Keep, block)?;
                if level.cross_attention {
                    self.joint(format!("up_blocks.{up}.attentions.{j}"), level.self_attention)?;
                }
            }
            if i > 0 {
                let name = format!("up_blocks.{up}.upsamplers.0");
                self.styled_res(name, self.config.width(i), Resample::Double, block)?;
            }
        }
        Ok(())
    }

    fn joint(&mut self, name: String, see_pixels: bool) -> Result<()> {
        let (channels, head, norm) = (self.channels, self.config.head_channels, self.config.norm);
        let context = self.config.context.map_or(0, |context| context.width);
        let layer = JointAttention::new(self.scope.at(&name), channels, context, head, norm, see_pixels)?;
        self.steps.push((name, Step::JointAttention(layer)));
        Ok(())
    }

    fn push(&mut self) {
        self.skips.push(self.channels);
        self.steps.push((String::new(), Step::Push));
    }

    fn concat(&mut self, scale: f64) {
        self.channels += self.skips.pop().unwrap_or(0);
        self.steps.push((String::new(), Step::Concat(scale)));
    }

    /// Names count the steps from 0: `3.res`, `4.self_attention`.
    fn name(&self, what: &str) -> String {
        format!("{}.{what}", self.steps.len())
    }
}
