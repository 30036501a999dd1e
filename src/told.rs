//! What the stages are told of a request: its embeddings, each in its place.

use ediffi_cascade::{Mixed, Share, Told, ToldExpert};
use ediffi_core::conditioning::Conditioning;
use tch::Tensor;

use crate::collector::Wanted;
use crate::{Embeddings, Request, Result};

/// The embeddings of requests that are drawn alike.
pub(crate) struct Texts {
    pub(crate) conditioning: Conditioning,
    pub(crate) unconditional: Conditioning,
    mixed: Vec<(Conditioning, Share)>,
    /// By the name of the stage.
    told: Vec<(String, Conditioning, Conditioning)>,
    /// By the name of the stage and the number of the expert.
    leaning: Vec<(String, usize, Conditioning)>,
}

/// What networks are told of the picture beside the texts, with and without the prompt.
pub(crate) type Micro = [Option<Tensor>; 2];

impl Texts {
    /// Those of several requests have a row for each image; those of one have a row for all.
    pub(crate) fn of(wanted: &[Wanted<'_>], embeddings: &[&Embeddings], micro: &Micro) -> Result<Self> {
        let [with, without] = micro;
        let told = |conditioning: Conditioning, micro: &Option<Tensor>| Conditioning {
            micro: micro.as_ref().map(Tensor::shallow_clone),
            ..conditioning
        };
        let (conditioning, unconditional) = rows(wanted, embeddings)?;
        let texts = Self {
            conditioning: told(conditioning, with),
            unconditional: told(unconditional, without),
            mixed: Vec::new(),
            told: Vec::new(),
            leaning: Vec::new(),
        };
        let ([Wanted { request, .. }], [embeddings]) = (wanted, embeddings) else { return Ok(texts) };
        let of = |text: &str| -> Result<Conditioning> {
            let conditioning = embeddings.text(text);
            let clip_image = styled(embeddings.conditioning().clip_image, request)?;
            Ok(told(Conditioning { clip_image, ..conditioning }, with))
        };
        let mixed = request.mix.iter().map(|mix| Ok((of(&mix.prompt)?, mix.shared())));
        let own = request.stage_prompts.iter().map(|(stage, own)| {
            let conditioning = own.prompt.as_ref().map(|text| of(text)).transpose()?;
            let unconditional = own.negative_prompt.as_ref().map(|text| told(embeddings.text(text), without));
            let conditioning = conditioning.unwrap_or_else(|| texts.conditioning.shallow_clone());
            let unconditional = unconditional.unwrap_or_else(|| texts.unconditional.shallow_clone());
            Ok((stage.clone(), conditioning, unconditional))
        });
        let (mixed, own) = (mixed.collect::<Result<_>>()?, own.collect::<Result<_>>()?);
        let leaning = request.stage_prompts.iter().flat_map(|(stage, own)| {
            let of = |(expert, text): (&usize, &String)| (stage.clone(), *expert, told(embeddings.text(text), without));
            own.expert_negative_prompts.iter().map(of)
        });
        Ok(Self { mixed, told: own, leaning: leaning.collect(), ..texts })
    }

    /// What guidance leads single experts away from.
    pub(crate) fn leaning(&self) -> Vec<ToldExpert<'_>> {
        let leaning = self.leaning.iter();
        leaning.map(|&(ref stage, expert, ref unconditional)| ToldExpert { stage, expert, unconditional }).collect()
    }

    /// The prompts of which each needs an image embedding, with and without the prompt: the first, those beside it, and those of single stages.
    pub(crate) fn pairs(&self) -> Vec<(&Conditioning, &Conditioning)> {
        let mixed = self.mixed.iter().map(|(conditioning, _)| (conditioning, &self.unconditional));
        let told = self.told.iter().map(|(_, conditioning, unconditional)| (conditioning, unconditional));
        std::iter::once((&self.conditioning, &self.unconditional)).chain(mixed).chain(told).collect()
    }

    /// With the image embeddings of the [pairs](Self::pairs), one for each in their order.
    pub(crate) fn with_images(mut self, images: Vec<Tensor>) -> Self {
        let mixed = self.mixed.iter_mut().map(|(conditioning, _)| conditioning);
        let told = self.told.iter_mut().map(|(_, conditioning, _)| conditioning);
        let all = std::iter::once(&mut self.conditioning).chain(mixed).chain(told);
        all.zip(images).for_each(|(conditioning, image)| conditioning.clip_image = Some(image));
        self
    }

    /// The prompts beside the first.
    pub(crate) fn mixed(&self) -> Vec<Mixed<'_>> {
        self.mixed.iter().map(|&(ref conditioning, share)| Mixed { conditioning, share }).collect()
    }

    /// What single stages are told.
    pub(crate) fn told(&self) -> Vec<Told<'_>> {
        let told = self.told.iter();
        told.map(|(stage, conditioning, unconditional)| Told { stage, conditioning, unconditional }).collect()
    }
}

/// Embeddings of what is drawn and of what guidance leads away from, a row for each image; one row for all images of a single request.
fn rows(wanted: &[Wanted<'_>], embeddings: &[&Embeddings]) -> Result<(Conditioning, Conditioning)> {
    let both = wanted.iter().zip(embeddings).map(|(Wanted { request, .. }, embeddings)| {
        let mut conditioning = embeddings.conditioning();
        conditioning.clip_image = styled(conditioning.clip_image, request)?;
        let images = if wanted.len() == 1 { 1 } else { request.images as i64 };
        Ok((conditioning, embeddings.unconditional(), images))
    });
    let both = both.collect::<Result<Vec<_>>>()?;
    let conditional: Vec<_> = both.iter().map(|(conditional, _, images)| (conditional, *images)).collect();
    let unconditional: Vec<_> = both.iter().map(|(_, unconditional, images)| (unconditional, *images)).collect();
    Ok((Conditioning::gathered(&conditional)?, Conditioning::gathered(&unconditional)?))
}

/// The style embedding at the strength that the request asks for: at 0 it is the zeros that stand for no style.
fn styled(style: Option<Tensor>, request: &Request) -> Result<Option<Tensor>> {
    let strength = request.style.as_ref().map_or(1.0, |style| style.strength);
    Ok(style.map(|style| style.f_mul_scalar(strength)).transpose()?)
}
