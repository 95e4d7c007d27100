//! Random weights obey random schemas, in answers and in the arguments of calls.

use futures_util::StreamExt;
use futures_util::stream;
use mistralrs::{ChatRequest, Finish, Grammar, Model, ModelSource, Part, ToolChoice};
use serde_json::{Map, Value, json};

use super::load;

const SCHEMAS: usize = 200;
/// Models that are asked for each.
const ASKED: usize = 2;
/// Requests at the same time.
const AT_ONCE: usize = 16;

/// Makes schemas of which every valid value is short.
struct Schemas(fastrand::Rng);

impl Schemas {
    fn object(&mut self, depth: usize) -> Value {
        let names = ["a", "the name", "x_1", "é", "type"];
        let count = self.0.usize(1..=3);
        let mut properties = Map::new();
        for name in self.0.choose_multiple(names, count) {
            properties.insert(name.into(), self.value(depth));
        }
        let required: Vec<String> = properties.keys().filter(|_| self.0.u8(0..4) > 0).cloned().collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    fn value(&mut self, depth: usize) -> Value {
        let kinds = if depth == 0 { 8 } else { 12 };
        match self.0.u8(0..kinds) {
            0 => json!({"type": "string", "maxLength": self.0.u8(0..6)}),
            1 => json!({"type": "string", "minLength": 1, "maxLength": self.0.u8(1..6)}),
            2 => json!({"type": "string", "pattern": self.0.choice(["^[a-c]{2}$", "^(x|yz)\"?$", "^\\d{1,3}<$"])}),
            3 => {
                let least = self.0.i32(-50..50);
                json!({"type": "integer", "minimum": least, "maximum": least + self.0.i32(0..200)})
            }
            4 => json!({"type": "boolean"}),
            5 => json!({"enum": ["red", 3, null, "<|\"|>", "two\nlines", -0.5, [1], {"k": "v"}]}),
            6 => json!({"const": self.0.choice(["it's", "\\ and \"", "", "</parameter>"])}),
            7 => json!({"type": ["null", "boolean"]}),
            8 => {
                json!({"type": "array", "items": self.value(depth - 1), "minItems": self.0.u8(0..2), "maxItems": self.0.u8(1..3)})
            }
            9 => json!({"anyOf": [self.value(depth - 1), self.value(depth - 1)]}),
            10 => json!({"$ref": "#/$defs/d"}),
            _ => self.object(depth - 1),
        }
    }

    fn next(&mut self) -> Value {
        let mut schema = self.object(2);
        schema["$defs"] = json!({"d": self.value(0)});
        schema
    }
}

/// What a model answers where its answer has to be valid for the schema: text, or the arguments of a call.
async fn obey(model: &Model, schema: &Value, seed: u64, as_call: bool) -> (Finish, String) {
    let mut request = ChatRequest {
        tokens_max: Some(400),
        template_kwargs: [("enable_thinking".to_string(), false.into())].into_iter().collect(),
        ..ChatRequest::user(vec![Part::Text("Go!".into())])
    };
    (request.sampling.temperature, request.sampling.seed) = (1.0, Some(seed));
    if as_call {
        request.tools = vec![json!({"name": "f", "description": "", "parameters": schema, "strict": true})];
        (request.tool_choice, request.calls_max) = (ToolChoice::Required, Some(1));
    } else {
        request.grammar = Some(Grammar::JsonSchema(schema.clone()));
    }
    let answer = model.answer(&request).await.unwrap_or_else(|e| panic!("{}: {schema}: {e}", model.id()));
    let said = if as_call { answer.calls.first().map(|call| call.arguments.clone()).unwrap_or_default() } else { answer.text };
    (answer.summary.finish, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_weights_obey_random_schemas() {
    let mut models = vec![load(ModelSource::Demo, None).await];
    for name in fixtures::names().unwrap() {
        models.push(load(ModelSource::Folder(fixtures::model(&name).unwrap()), None).await);
    }
    let mut schemas = Schemas(fastrand::Rng::with_seed(7));
    let schemas: Vec<Value> = (0..SCHEMAS).map(|_| schemas.next()).collect();
    let count = models.len();
    let asked = (0..SCHEMAS * ASKED).map(|i| {
        let (model, schema) = (models[i % count].clone(), schemas[i / ASKED].clone());
        async move {
            // Each model is asked both ways: their number may be even.
            let as_call = (i + i / count) % 2 == 0;
            let (finish, said) = obey(&model, &schema, i as u64, as_call).await;
            let context = format!("{} {i}, a call: {as_call}: {schema}: {said}", model.id());
            if finish == Finish::Length {
                return false;
            }
            let value: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{context}: {e}"));
            let validator = jsonschema::validator_for(&schema).unwrap();
            if let Err(e) = validator.validate(&value) {
                panic!("{context}: {e}");
            }
            true
        }
    });
    let complete: Vec<bool> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let cut = complete.iter().filter(|complete| !**complete).count();
    assert!(cut * 50 < complete.len(), "{cut} answers were cut off");
}
