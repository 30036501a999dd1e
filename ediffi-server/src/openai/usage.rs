//! Usage: what can be counted.

use ediffi::{Canvas, Region, Request};
use serde::Serialize;
use serde_json::{Value, json};

use crate::service::Service;

/// The tokens of a request. Pictures are not made of tokens here: they count as none.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Usage {
    input_tokens: usize,
    input_tokens_details: Details,
    output_tokens: usize,
    total_tokens: usize,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Details {
    image_tokens: usize,
    text_tokens: usize,
}

impl Usage {
    /// The tokens that the model's first text encoder makes of the prompt, without marks of its begin and end. None where they cannot be
    /// told, as of a prompt that is cut.
    pub(super) async fn of(service: &Service, model: Option<String>, request: &Request) -> Option<Self> {
        if request.prompt.trim().is_empty() {
            return Some(Self::new(0));
        }
        let prompt = request.prompt.clone();
        let tokens = service.ask(model, move |pipeline| {
            // What a region that is the whole prompt takes.
            let region = Region::rectangle(prompt.trim(), (1, 1), 0..1, 0..1)?;
            let bindings = pipeline.bindings(&Request::new(prompt.clone()).canvas(Canvas::new([region])?))?;
            let first = bindings.first().and_then(|binding| binding.encoders.first());
            Ok(first.map(|encoder| encoder.tokens.len()))
        });
        tokens.await.ok().flatten().map(Self::new)
    }

    fn new(text_tokens: usize) -> Self {
        let input_tokens_details = Details { image_tokens: 0, text_tokens };
        Self { input_tokens: text_tokens, input_tokens_details, output_tokens: 0, total_tokens: text_tokens }
    }

    pub(super) fn json(usage: Option<Self>) -> Value {
        usage.map_or(Value::Null, |usage| json!(usage))
    }
}
