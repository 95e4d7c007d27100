// Vercel's AI SDK calls two functions of its own, one after the other, and prints what came of it: node agent.mjs BASE_URL
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const called = ["weather", "note"];
const request = {
  model: createOpenAICompatible({ name: "here", baseURL: process.argv[2] })("default"),
  providerOptions: { here: { parallel_tool_calls: false } },
  prompt: "Go!",
  temperature: 0,
  maxOutputTokens: 300,
  maxRetries: 0,
  tools: {
    weather: tool({
      description: "The weather of a city.",
      inputSchema: z.object({ city: z.enum(["Berlin", "Paris"]) }),
      execute: async ({ city }) => `It rains in ${city}.`,
    }),
    note: tool({
      description: "Takes a note.",
      inputSchema: z.object({ kind: z.enum(["short", "long"]) }),
      execute: async ({ kind }) => `noted: ${kind}`,
    }),
  },
  stopWhen: stepCountIs(called.length + 1),
  // The model knows nothing of functions: it is said which one it calls.
  prepareStep: ({ stepNumber }) => ({
    toolChoice: stepNumber < called.length ? { type: "tool", toolName: called[stepNumber] } : "none",
  }),
};

function told(steps) {
  return steps.flatMap((step) => step.toolResults.map((result) => [result.toolName, result.output]));
}

const whole = await generateText(request);
const streamed = streamText(request);
let text = "";
for await (const piece of streamed.textStream) text += piece;
console.log(JSON.stringify({ whole: told(whole.steps), streamed: told(await streamed.steps), text: typeof whole.text }));
