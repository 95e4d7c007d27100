//! The flags, parsed into plain data.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use mistralrs::{
    AudioOptions, Capacity, Detail, DeviceLayers, Dialect, Dtype, ImageOptions, KvFormat, Organization, Quant, Reading,
    VideoOptions,
};

use crate::attachments::Attachments;
use crate::cache::CacheOptions;
use crate::quantize::QuantizeOptions;
use crate::tooling::ToolOptions;
use crate::tune::TuneOptions;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 flags that make no sense";

/// Answers about pictures, sound and clips.
#[derive(Debug, Parser)]
#[command(name = "mistralrs", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a question, or talk
    Run(RunOptions),
    /// Serve the OpenAI HTTP API
    Serve(ServeOptions),
    /// Measure a model on this machine
    Bench(BenchOptions),
    /// List the model families that can be loaded
    Families,
    /// Say what this machine has, and what would help
    Doctor(DoctorOptions),
    /// Find the quantisation of a model that fits this machine
    Tune(TuneOptions),
    /// Write a checkpoint that is quantised already
    Quantize(QuantizeOptions),
    /// List or delete what was downloaded
    Cache(CacheOptions),
    /// Print a script that completes commands and flags in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    #[command(hide = true)]
    Man {
        /// Folder that they go to
        folder: PathBuf,
    },
    /// Write the pages of a PDF as the server reads them
    #[command(name = crate::pages::COMMAND, hide = true)]
    Pages(PagesOptions),
}

/// Which model, and how it is loaded.
#[derive(Debug, Clone, Args)]
pub struct ModelOptions {
    /// Folder with a checkpoint, or a Hugging Face id (organisation/name); a tiny built-in demo model when left out
    #[arg(short, long, value_name = "FOLDER|ID")]
    pub model_id: Option<String>,
    /// Number format of weights that are not quantised
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: DtypeArgument,
    /// Quantise while loading: a level (2 3 4 5 6 8) or a format (q4k, q8_0, ...)
    #[arg(long, visible_alias = "isq", value_name = "LEVEL|FORMAT")]
    pub quant: Option<Quant>,
    /// What --quant is for: all of the language model, or its experts alone
    #[arg(long, value_enum, value_name = "WHICH", requires = "quant", default_value = "default")]
    pub isq_organization: OrganizationArgument,
    /// Formats of some layers or matrices, which come before --quant: a file (.yml) with layers or patterns and `isq` of each
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Layers on each accelerator; all others are on the processor
    #[arg(short = 'n', long, value_name = "DEVICE:LAYERS;...")]
    pub device_layers: Option<DeviceLayers>,
    /// Importance matrix of llama.cpp (.gguf or .dat) for --quant to go by
    #[arg(long, value_name = "FILE", requires = "quant", conflicts_with = "calibration_file")]
    pub imatrix: Option<PathBuf>,
    /// Text for --quant to go by: the model reads all of it first, 512 tokens at a time, not quantised yet (and in the memory that
    /// takes)
    #[arg(long, value_name = "FILE", requires = "quant")]
    pub calibration_file: Option<PathBuf>,
    /// Part of a nested model (MatFormer) to load, by its name in the table of slices; the rest never takes memory
    #[arg(long, value_name = "NAME")]
    pub matformer_slice_name: Option<String>,
    /// Table of slices (.csv or .json) instead of the published ones
    #[arg(long, value_name = "FILE", requires = "matformer_slice_name")]
    pub matformer_config_path: Option<PathBuf>,
    /// tokenizer.json or tekken.json to use instead of the model's
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Chat template to use instead of the model's: .jinja, or .json with the key chat_template
    #[arg(short, long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Chat template (.jinja) that goes before all others
    #[arg(short, long, value_name = "FILE")]
    pub jinja_explicit: Option<PathBuf>,
    /// How the model writes calls of functions, where its chat template does not show it: hermes, xml, quoted, bracketed, listed,
    /// fenced, pythonic, python_tag or json
    #[arg(long, value_name = "NOTATION")]
    pub tool_dialect: Option<Dialect>,
    /// Folder of downloaded models; otherwise the usual Hugging Face cache
    #[arg(long, value_name = "FOLDER")]
    pub hf_cache: Option<PathBuf>,
    #[command(flatten)]
    pub pictures: PictureOptions,
    /// Tokens of a conversation at most, answer included
    #[arg(long, value_name = "TOKENS")]
    pub max_seq_len: Option<usize>,
    /// Memory that all of it may take, in MiB; otherwise what is free. A model that does not fit is refused before it is loaded
    #[arg(long, value_name = "MIB")]
    pub memory_mb: Option<usize>,
    /// Memory for keys and values, in MiB; otherwise half of what the model leaves, or less where less is of use
    #[arg(long, visible_alias = "pa-memory-mb", value_name = "MIB")]
    pub kv_cache_mb: Option<usize>,
    /// Numbers of keys and values; auto for those that the model computes with
    #[arg(long, value_enum, default_value = "auto")]
    pub kv_cache_type: KvCacheType,
    /// Requests that are answered at the same time; others wait
    #[arg(long, value_name = "REQUESTS", default_value_t = Capacity::default().sequences_max)]
    pub max_seqs: usize,
    /// Tokens that are computed in one step: more read prompts faster, fewer make others wait less
    #[arg(long, value_name = "TOKENS", default_value_t = Capacity::default().step_tokens_max)]
    pub max_num_batched_tokens: usize,
    /// Memory for encoded pictures, sounds and clips that are kept for later questions, in MiB
    #[arg(long, value_name = "MIB", default_value_t = Capacity::default().encodings_bytes_max >> 20)]
    pub encoder_cache_mb: usize,
    /// Memory for decoded and resized pictures and clips that are kept for later questions, in MiB
    #[arg(long, value_name = "MIB", default_value_t = Capacity::default().media_bytes_max >> 20)]
    pub media_cache_mb: usize,
    /// How much of the checkpoint is read.
    #[arg(skip)]
    pub reading: Reading,
}

/// What is wanted of pictures, unless a request says otherwise.
#[derive(Debug, Clone, Copy, Args)]
pub struct PictureOptions {
    /// How closely pictures are looked at: low is 512 pixels along a side at most, high as closely as the model can
    #[arg(long, value_name = "auto|low|high")]
    pub detail: Option<Detail>,
    /// Pixels (width times height) of a picture that the model is shown, at least
    #[arg(long, value_name = "PIXELS")]
    pub min_pixels: Option<usize>,
    /// Pixels (width times height) of a picture that the model is shown, at most
    #[arg(long, value_name = "PIXELS")]
    pub max_pixels: Option<usize>,
    /// Tokens that stand for a picture, at most
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens_per_image: Option<usize>,
    /// Longer side of a picture that the model is shown, at most
    #[arg(long, value_name = "PIXELS")]
    pub max_edge: Option<usize>,
}

impl PictureOptions {
    /// What they say, if it makes sense.
    pub fn checked(self) -> anyhow::Result<ImageOptions> {
        let Self { detail, min_pixels, max_pixels, max_tokens_per_image: max_tokens, max_edge } = self;
        let options = ImageOptions { detail, min_pixels, max_pixels, max_tokens, max_edge };
        options.check().map_err(|e| match e.field {
            "max_tokens" => anyhow::anyhow!("--max-tokens-per-image {}", e.reason),
            field => anyhow::anyhow!("--{} {}", field.replace('_', "-"), e.reason),
        })?;
        Ok(options)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum KvCacheType {
    Auto,
    F32,
    Bf16,
    F16,
    Q8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OrganizationArgument {
    /// All matrices
    Default,
    /// Routed experts, everything else as it is
    Moqe,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DtypeArgument {
    Auto,
    F32,
    Bf16,
    F16,
}

#[derive(Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// Question; answer it and exit. - reads it from standard input
    #[arg(short, long, value_name = "TEXT")]
    pub input: Option<String>,
    #[command(flatten)]
    pub media: Attachments,
    #[command(flatten)]
    pub clip: ClipOptions,
    /// Print the answer and what it took as JSON
    #[arg(long, requires = "input")]
    pub json: bool,
    /// JSON schema that the answer has to be valid for
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Draw what the answer says where things are into the picture, as PNG
    #[arg(long, value_name = "FILE", requires = "image", conflicts_with = "dry_run")]
    pub draw_boxes: Option<PathBuf>,
    /// Print what the model would read, and how much that is, instead of asking it. Its weights are not read
    #[arg(long, requires = "input")]
    pub dry_run: bool,
    /// Write the pictures, tiles and frames that the model would look at into a folder, as PNG
    #[arg(long, value_name = "FOLDER", requires = "dry_run")]
    pub save_inputs: Option<PathBuf>,
    /// Show pictures that are asked about, in a terminal that can
    #[arg(long)]
    pub show_images: bool,
    /// Print words as they are, not set as Markdown, where the answer goes to a terminal
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub tools: ToolOptions,
    /// What the model is told beforehand
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Whether the model thinks first, if it can; as it likes when left out
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub thinking: Option<bool>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens: Option<usize>,
    /// Tokens of an answer at least
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub min_tokens: usize,
    /// 0 takes the most probable word always; higher is more varied
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Draw from the most probable tokens that add up to this
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Draw from so many of the most probable tokens; 0 for all
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Draw from tokens at least so probable, relative to the best
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Makes words less probable that prompt or answer have already; 1 does nothing
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Makes words less probable that the answer has already
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Makes words less probable the more often the answer has them
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Keeps the answer from repeating whole passages; 0 does nothing, 0.8 is usual
    #[arg(long, default_value_t = 0.0)]
    pub dry_multiplier: f32,
    /// Makes the draw repeatable
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What is wanted of sounds and clips.
#[derive(Debug, Clone, Copy, Args)]
#[command(group(ArgGroup::new("timed").args(["audio", "video"]).multiple(true)))]
pub struct ClipOptions {
    /// Frames of a clip that are looked at per second, instead of the model's own number; for a folder, how fast its pictures follow
    /// each other (2 when left out)
    #[arg(long, requires = "video", allow_negative_numbers = true)]
    pub fps: Option<f64>,
    /// Frames of a clip that are looked at, at most
    #[arg(long, value_name = "FRAMES", requires = "video")]
    pub max_frames: Option<usize>,
    /// Leave out what comes before in a sound or clip
    #[arg(long, value_name = "SECONDS", requires = "timed", allow_negative_numbers = true)]
    pub start: Option<f64>,
    /// Leave out what comes after in a sound or clip
    #[arg(long, value_name = "SECONDS", requires = "timed", allow_negative_numbers = true)]
    pub end: Option<f64>,
}

impl ClipOptions {
    /// What they say, if it makes sense.
    pub fn checked(self) -> anyhow::Result<VideoOptions> {
        let Self { fps, max_frames, start, end } = self;
        let options = VideoOptions { fps, max_frames, start, end };
        options.check().map_err(|e| anyhow::anyhow!("--{} {}", e.field.replace('_', "-"), e.reason))?;
        Ok(options)
    }

    /// What of it is about sounds.
    pub fn of_sound(self) -> AudioOptions {
        AudioOptions { start: self.start, end: self.end }
    }
}

#[derive(Debug, Args)]
pub struct ServeOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen at; 0 picks a free one
    #[arg(short, long, default_value_t = 1234)]
    pub port: u16,
    /// Folder whose files requests may name by file:// URLs, repeatable; otherwise any file when the address is a loopback
    /// one, and none when it is not
    #[arg(long, value_name = "FOLDER")]
    pub media_root: Vec<PathBuf>,
    /// Host (or host:port) that media may be downloaded from, though its address is none of the public internet, repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow_media_host: Vec<String>,
    /// Key that requests have to bring (Authorization: Bearer KEY, or x-api-key: KEY), repeatable; MISTRALRS_API_KEY has more,
    /// separated by commas
    #[arg(long, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// Name by which the server may be called too, repeatable; at a loopback address it answers only to the names of one otherwise
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// Web page that may ask the server, as https://example.com, repeatable, or * for all; none when left out
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Size of a request's body at most, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_body_mb: u32,
    /// Memory for uploaded media, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub uploads_mb: usize,
    /// Memory for conversations that can be continued by previous_response_id, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub responses_mb: usize,
    /// How long uploads and conversations are kept, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub keep_seconds: u64,
    /// Connections at the same time; others wait
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// How long answers may go on when the server is told to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,
    #[command(flatten)]
    pub tools: ToolOptions,
    /// How requests are noted on standard error
    #[arg(long, value_enum, default_value = "text")]
    pub access_log_format: AccessLogFormat,
    /// Do not note requests
    #[arg(long, conflicts_with = "access_log_format")]
    pub disable_access_log: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AccessLogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct BenchOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// Prompts of about so many tokens; 0 for none
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "64,512")]
    pub prompt_len: Vec<usize>,
    /// Tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub gen_len: usize,
    /// Tokens that stand before the answer whose speed is measured
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "32,2048")]
    pub depth: Vec<usize>,
    /// Pictures of these sizes, for a model that takes any
    #[arg(long, value_name = "WIDTHxHEIGHT", value_delimiter = ',', default_value = "448x448", value_parser = picture_size)]
    pub image_size: Vec<(usize, usize)>,
    /// Pictures in one question
    #[arg(long, default_value_t = 1)]
    pub images: usize,
    /// Sound to be listened to, for a model that takes any: path; repeatable
    #[arg(long, value_name = "PATH")]
    pub audio: Vec<String>,
    /// Clip to be looked at, for a model that takes any: path, or folder of pictures; repeatable
    #[arg(long, value_name = "PATH")]
    pub video: Vec<String>,
    #[command(flatten)]
    pub clip: ClipOptions,
    /// Requests at once
    #[arg(long, value_delimiter = ',', default_value = "1,4,8")]
    pub concurrency: Vec<usize>,
    /// Prompts of so many tokens that are read while four answers are written; 0 for none
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "1024")]
    pub beside: Vec<usize>,
    /// How often each figure is taken; the median is printed
    #[arg(long, default_value_t = 3)]
    pub iterations: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PagesOptions {
    pub file: PathBuf,
    pub first: usize,
    /// 0 for the last of all
    pub last: usize,
}

#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

fn picture_size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides
        .filter(|&(width, height)| (1..=16_384).contains(&width) && (1..=16_384).contains(&height))
        .ok_or_else(|| "a size looks like 448x448".into())
}

impl ModelOptions {
    pub fn reading(self, reading: Reading) -> Self {
        Self { reading, ..self }
    }

    pub fn capacity(&self) -> Capacity {
        Capacity {
            memory_bytes: self.memory_mb.map(|mib| mib.saturating_mul(1 << 20)),
            cache_bytes: self.kv_cache_mb.map(|mib| mib.saturating_mul(1 << 20)),
            cache_format: match self.kv_cache_type {
                KvCacheType::Auto => None,
                KvCacheType::F32 => Some(KvFormat::F32),
                KvCacheType::Bf16 => Some(KvFormat::Bf16),
                KvCacheType::F16 => Some(KvFormat::F16),
                KvCacheType::Q8 => Some(KvFormat::Q8),
            },
            sequences_max: self.max_seqs,
            step_tokens_max: self.max_num_batched_tokens,
            encodings_bytes_max: self.encoder_cache_mb.saturating_mul(1 << 20),
            media_bytes_max: self.media_cache_mb.saturating_mul(1 << 20),
        }
    }
}

impl From<OrganizationArgument> for Organization {
    fn from(argument: OrganizationArgument) -> Self {
        match argument {
            OrganizationArgument::Default => Self::Default,
            OrganizationArgument::Moqe => Self::Moqe,
        }
    }
}

impl From<DtypeArgument> for Dtype {
    fn from(argument: DtypeArgument) -> Self {
        match argument {
            DtypeArgument::Auto => Self::Auto,
            DtypeArgument::F32 => Self::F32,
            DtypeArgument::Bf16 => Self::Bf16,
            DtypeArgument::F16 => Self::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn media_need_a_question() {
        assert!(Arguments::try_parse_from(["mistralrs", "run", "--image", "a.png"]).is_err());
        assert!(Arguments::try_parse_from(["mistralrs", "run", "--image", "a.png", "--image", "b.png", "-i", "?"]).is_ok());
        assert!(Arguments::try_parse_from(["mistralrs", "run", "--quant", "7"]).is_err());
    }

    #[test]
    fn a_part_is_one_of_a_sound_or_clip() {
        let cases = [
            ("--start 1", false),
            ("--image a.png --start 1", false),
            ("--audio a.wav --start 1 --end 2", true),
            ("--video a.mp4 --end 2", true),
            ("--audio a.wav --video a.mp4 --start 1", true),
            ("--audio a.wav --fps 1", false),
        ];
        for (flags, allowed) in cases {
            let flags = ["mistralrs", "run", "-i", "?"].into_iter().chain(flags.split(' '));
            assert_eq!(Arguments::try_parse_from(flags.clone()).is_ok(), allowed, "{:?}", flags.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_said_of_a_quantisation_needs_one() {
        let cases = [
            ("--isq-organization moqe", false),
            ("--isq 4 --isq-organization moqe", true),
            ("--quant q4k --isq-organization default", true),
            ("--quant 4 --isq-organization some", false),
            ("--imatrix a.gguf", false),
            ("--calibration-file a.txt", false),
            ("--quant 2 --imatrix a.gguf", true),
            ("--isq q8_0 --calibration-file a.txt", true),
            ("--quant 2 --imatrix a.gguf --calibration-file a.txt", false),
        ];
        for (flags, allowed) in cases {
            let flags = ["mistralrs", "run"].into_iter().chain(flags.split(' '));
            assert_eq!(Arguments::try_parse_from(flags.clone()).is_ok(), allowed, "{:?}", flags.collect::<Vec<_>>());
        }
    }
}
