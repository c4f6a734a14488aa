// Opens ONNX files with netron's own modules, as its page does, without a page: a line of JSON for each.
//     node netron.mjs FOLDER FILE...          FOLDER: of the Python package netron, which holds its JavaScript
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, ...files] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(folder, `${name}.js`)));
const view = await load('view');
const base = await load('base');
const host = {
    type: 'Test',
    window: globalThis,
    document: {},
    environment: () => null,
    event: () => {},
    exception: (error) => { throw error; },
    require: async (id) => load(id.replace(/^\.\//, '')),
    asset: async (file) => fs.readFile(path.join(folder, file), 'utf-8')
};
const service = new view.ModelFactoryService(host);
for (const file of files) {
    let row = {};
    try {
        const model = await service.open({
            identifier: path.basename(file),
            stream: new base.BinaryStream(new Uint8Array(await fs.readFile(file))),
            entries: new Map(),
            require: host.require,
            asset: host.asset,
            fetch: async (name) => { throw new Error(`asks for ${name}`); },
            error: (error) => { throw error; }
        });
        const [graph] = model.modules;
        row = {
            format: model.format,
            operators: graph.nodes.map((node) => node.type.name),
            inputs: graph.inputs.map((input) => input.name),
            outputs: graph.outputs.map((output) => output.name),
            metadata: model.metadata.map((entry) => entry.name)
        };
    } catch (error) {
        row = { error: error.message };
    }
    console.log(JSON.stringify(row));
}
