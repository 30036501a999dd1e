//! Many requests at once: those that are drawn alike share their batches.

use std::time::Duration;

use ediffi_core::exit;
use ediffi_core::guard::guarded;

use crate::collector::Wanted;
use crate::encoders::LoadedEncoders;
use crate::observer::Outside;
use crate::{Embeddings, Error, Generation, Observer, Pipeline, Request, Result, shape};

impl Pipeline {
    /// Makes the images of several requests. Requests that differ in nothing but prompt, negative prompt, style, seed and number of images
    /// are drawn in the same batches, whatever their order, as far as the limits allow so many images together: 64 prompts are as many batches
    /// as 64 images of one. Each image is the one that its own request gives, to rounding.
    ///
    /// All texts are encoded first; the encoders stay in memory until then.
    ///
    /// ```no_run
    /// use ediffi::{Pipeline, Request};
    ///
    /// let pipeline = Pipeline::open(ediffi::icons()?)?;
    /// let requests = ["a cat", "a dog", "a fish"].map(|prompt| Request::new(prompt).seed(7));
    /// for generation in pipeline.generate_many(&requests)? {
    ///     println!("{}", generation.images[0].request().prompt);
    /// }
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OfMany`] naming the first request that is refused, before anything is loaded; those of [`Pipeline::generate`].
    pub fn generate_many(&self, requests: &[Request]) -> Result<Vec<Generation>> {
        self.generate_many_with(requests, &mut ())
    }

    /// As [`generate_many`](Self::generate_many), watched by an observer, which may stop it. Images are numbered over all requests in their
    /// order; each is told of when it is finished, so a later failure loses none.
    ///
    /// # Errors
    /// As [`generate_many`](Self::generate_many), and [`Error::Cancelled`].
    pub fn generate_many_with(&self, requests: &[Request], observer: &mut dyn Observer) -> Result<Vec<Generation>> {
        let (_inside, _no_grad) = (exit::enter(), tch::no_grad_guard());
        let observer = &mut Outside(observer);
        let of_many = |index| move |source| Error::OfMany { index, source: Box::new(source) };
        let mut settled = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            self.validate(request).map_err(of_many(index))?;
            settled.push(request.settled().map_err(of_many(index))?);
        }
        let mut first = 0;
        let wanted: Vec<Wanted<'_>> = settled
            .iter()
            .map(|request| {
                let wanted = Wanted { request, first };
                first += request.images;
                wanted
            })
            .collect();
        guarded(|| {
            let state = &mut *self.state()?;
            // Each encoder is loaded once for all texts.
            let encoded = wanted.iter().map(|one| self.embed(state, one.request, observer, true));
            let encoded = encoded.collect::<Result<Vec<(Embeddings, Duration)>>>()?;
            if !self.keep_encoders {
                state.loaded = LoadedEncoders::default();
            }
            let abilities = self.abilities(false);
            let fits = |request: &Request| {
                let running = shape::running(request, abilities.stages);
                abilities.limits.problems(request, abilities.stages, running, abilities.drawing).is_empty()
            };
            let mut generations: Vec<Option<Generation>> = wanted.iter().map(|_| None).collect();
            for group in groups(&wanted, fits) {
                let members = || group.iter().filter_map(|&index| wanted.get(index).copied());
                let texts = || group.iter().filter_map(|&index| encoded.get(index));
                let embeddings: Vec<&Embeddings> = texts().map(|(embeddings, _)| embeddings).collect();
                let (images, stages) = self.draw(state, &members().collect::<Vec<_>>(), &embeddings, None, observer)?;
                let mut images = images.into_iter();
                for ((&index, one), (_, encoding)) in group.iter().zip(members()).zip(texts()) {
                    let images = images.by_ref().take(one.request.images).collect();
                    if let Some(place) = generations.get_mut(index) {
                        *place = Some(Generation { images, stages: stages.clone(), encoding: *encoding });
                    }
                }
            }
            Ok(generations.into_iter().flatten().collect())
        })
    }
}

/// The numbers of requests that are drawn alike, in the order of their first. `fits` says of a request with the images of all of them
/// whether it is within the limits.
fn groups(wanted: &[Wanted<'_>], fits: impl Fn(&Request) -> bool) -> Vec<Vec<usize>> {
    // A request that a later one may join: its frame, the place of its group, and how many images that has.
    let mut open: Vec<(Request, usize, usize)> = Vec::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, Wanted { request, .. }) in wanted.iter().enumerate() {
        let frame = frame(request);
        let joins = |(other, _, images): &&mut (Request, usize, usize)| {
            *other == frame && fits(&other.clone().images(images.saturating_add(request.images)))
        };
        match open.iter_mut().find(joins) {
            // Paint is of one request's words, and so is what is mixed.
            Some((_, place, images)) if request.canvas.is_none() && !request.has_further_texts() => {
                *images += request.images;
                if let Some(group) = groups.get_mut(*place) {
                    group.push(index);
                }
            }
            _ => {
                open.push((frame, groups.len(), request.images));
                groups.push(vec![index]);
            }
        }
    }
    groups
}

/// What requests that are drawn alike have in common.
fn frame(request: &Request) -> Request {
    let Request { mix, stage_prompts, near, canvas, edit, micro, .. } = request.clone();
    let Request { width, height, first_stage, last_stage, preset, stages, .. } = request.clone();
    let frame = Request { mix, stage_prompts, near, canvas, edit, micro, ..Request::new("") };
    Request { width, height, first_stage, last_stage, preset, stages, ..frame }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(requests: &[Request], most: usize) -> Vec<Vec<usize>> {
        let wanted: Vec<_> = requests.iter().map(|request| Wanted { request, first: 0 }).collect();
        groups(&wanted, |request| request.images <= most)
    }

    #[test]
    fn what_is_drawn_alike_is_drawn_together() {
        let canvas =
            ediffi_paint::Canvas::new([ediffi_paint::Region::rectangle("a", (2, 2), 0..1, 0..1).unwrap()]).unwrap();
        let requests = [
            Request::new("a").seed(3),
            Request::new("b").steps("base", 4),
            Request::new("c").negative_prompt("d").images(2),
            Request::new("a").canvas(canvas.clone()),
            Request::new("e").steps("base", 4),
            Request::new("a").canvas(canvas),
            Request::new("a").mix(crate::Mix::new("b")),
            Request::new("a").mix(crate::Mix::new("b")),
            Request::new("a").near(3, 0.5),
            Request::new("b").near(3, 0.5),
        ];
        assert_eq!(grouped(&requests, 64), [vec![0, 2], vec![1, 4], vec![3], vec![5], vec![6], vec![7], vec![8, 9]]);
        assert_eq!(
            grouped(&requests, 2),
            [vec![0], vec![1, 4], vec![2], vec![3], vec![5], vec![6], vec![7], vec![8, 9]]
        );
        assert!(grouped(&[], 64).is_empty());
    }
}
