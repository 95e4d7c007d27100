"""Agents of OpenAI's and LangChain's frameworks call two functions of theirs, one after the other, by `mistralrs serve` with the
built-in model. It knows nothing of functions: who asks says which one is called."""

import unittest
from typing import Literal

from server import Server

try:
    import agents
    import langchain_openai
    import openai
except ImportError as e:
    print(f"SKIPPED tests/e2e: the package {e.name} is missing")
    raise unittest.SkipTest(f"the package {e.name} is missing")

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

CALLED = ["weather", "note"]


def weather(city: Literal["Berlin", "Paris"]) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


def note(kind: Literal["short", "long"]) -> str:
    """Takes a note."""
    return f"noted: {kind}"


class OneAfterTheOther(agents.OpenAIChatCompletionsModel):
    """Calls each function, then answers."""

    async def get_response(self, system_instructions, input, model_settings, *rest, **more):
        results = 0 if isinstance(input, str) else sum(item.get("type") == "function_call_output" for item in input)
        choice = CALLED[results] if results < len(CALLED) else "none"
        model_settings = model_settings.resolve(agents.ModelSettings(tool_choice=choice))
        return await super().get_response(system_instructions, input, model_settings, *rest, **more)


class Agents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--tool-dialect", "hermes", "--disable-access-log")
        cls.base_url = f"{cls.server.address}/v1"

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_openai_agents(self):
        agents.set_tracing_disabled(True)
        client = openai.AsyncOpenAI(base_url=self.base_url, api_key="EMPTY", max_retries=0)
        settings = agents.ModelSettings(temperature=0, max_tokens=400, parallel_tool_calls=False)
        agent = agents.Agent(
            name="it",
            model=OneAfterTheOther(model="default", openai_client=client),
            model_settings=settings,
            tools=[agents.function_tool(weather), agents.function_tool(note)],
            reset_tool_choice=False,
        )
        run = agents.Runner.run_sync(agent, "Go!", max_turns=3)
        calls = [item.raw_item.name for item in run.new_items if item.type == "tool_call_item"]
        outputs = [item.output for item in run.new_items if item.type == "tool_call_output_item"]
        self.assertEqual(calls, CALLED)
        self.assertTrue(outputs[0].startswith("It rains in ") and outputs[1].startswith("noted: "), outputs)
        self.assertIsInstance(run.final_output, str)

    def test_langchain(self):
        model = langchain_openai.ChatOpenAI(
            model="default", base_url=self.base_url, api_key="EMPTY", temperature=0, max_tokens=400, max_retries=0
        )
        functions = {function.__name__: tool(function) for function in (weather, note)}
        messages = [HumanMessage("Go!")]
        for name in CALLED:
            bound = model.bind_tools(functions.values(), tool_choice=name, parallel_tool_calls=False, strict=True)
            answer = bound.invoke(messages)
            (call,) = answer.tool_calls
            self.assertEqual(call["name"], name)
            messages += [answer, functions[name].invoke(call)]
        self.assertTrue(all(isinstance(messages[i], ToolMessage) for i in (2, 4)))
        streamed = None
        for chunk in model.bind_tools(functions.values(), tool_choice="weather", strict=True).stream(messages):
            streamed = chunk if streamed is None else streamed + chunk
        self.assertEqual([call["name"] for call in streamed.tool_calls][:1], ["weather"])
        self.assertIsInstance(model.bind_tools(functions.values(), tool_choice="none").invoke(messages).content, str)


if __name__ == "__main__":
    unittest.main()
