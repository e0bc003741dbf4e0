// Ask llama.cpp, through npm's node-llama-cpp, what it makes of GGUF files.
//
// Reads a list of {file, lora, texts, chats, ids, num_tokens} from the first file named and writes into the
// second, for each, the tokens of the texts, the chats as llama.cpp's own Jinja renders the template in
// the file, the logits after each of the tokens `ids`, the tokens that follow them greedily, or an
// embedding.
import {readFileSync, writeFileSync} from "node:fs";
import {getLlama, readGgufFileInfo} from "node-llama-cpp";

const llama = await getLlama({build: "never", gpu: false, logLevel: "error"});
const answers = [];
for (const asked of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
    const model = await llama.loadModel({modelPath: asked.file});
    const answer = {tokens: asked.texts.map((text) => model.tokenize(text, true))};
    const {metadata} = await readGgufFileInfo(asked.file);
    const template = metadata.tokenizer.chat_template;
    answer.rendered = asked.chats.map((chat) =>
        new llama._bindings.AddonJinjaRenderer(template).render({
            messages: chat, add_generation_prompt: true,
            bos_token: model.tokens.bosString ?? "", eos_token: model.tokens.eosString ?? ""
        })
    );
    if (asked.embeds) {
        const context = await model.createEmbeddingContext({threads: 1});
        answer.embedding = (await context.getEmbeddingFor(asked.ids)).vector;
        await context.dispose();
    } else {
        const context = await model.createContext({
            contextSize: 256, threads: 1, flashAttention: false,
            lora: asked.lora ? {adapters: [{filePath: asked.lora}]} : undefined,
            experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
        });
        const sequence = context.getSequence();
        const options = {generateNext: {logits: true}};
        const after = await sequence.controlledEvaluate(asked.ids.map((id) => [id, options]));
        answer.logits = after.map(({next}) => {
            const row = new Array(next.logits.size);
            for (const [id, logit] of next.logits) row[id] = logit;
            return row;
        });
        await sequence.clearHistory();
        answer.greedy = [];
        for await (const id of sequence.evaluate(asked.ids, {temperature: 0, yieldEogToken: true})) {
            answer.greedy.push(id);
            if (answer.greedy.length >= asked.num_tokens || model.isEogToken(id)) break;
        }
        await context.dispose();
    }
    await model.dispose();
    answers.push(answer);
}
writeFileSync(process.argv[3], JSON.stringify(answers));
process.exit(0);
