// Guided tours on top of the lab. A step says something, may set a state, and may test what the reader has done.
// What a tour says is true of any model whose classes are known; numbers are those of the run in front of the reader.

const PLAIN = { heads: [], only: false, how: "zero", amount: 1, at: [], stream: [] };
const MOVERS = "name mover", BACKUPS = "backup name mover", INHIBITION = "S-inhibition";
const now = ({ view }) => view?.diff?.[1], was = ({ view }) => view?.diff?.[0];
const says = ({ view }) => view?.top.reduce((a, b) => (b[2] > a[2] ? b : a))[0].trim();
const right = (lab) => says(lab) === lab.view?.answers?.[0];
const both = (lab) => (lab.view?.diff ? `${lab.number(was(lab))} → ${lab.number(now(lab))}` : "");

export const TOURS = [
  {
    id: "writer", title: "Find who writes the name",
    steps: [
      { text: "The sentence asks for a name, and the model gives the right one. Somewhere in its heads that name is put into the last position. Late heads stand at the bottom of the grid. Look at a few of the last four rows: point at them, or walk there with the arrow keys.", set: PLAIN, reveal: false, todo: "Look at a head in one of the last four rows.", well: "That is how a head shows where it looks.", test: ({ looked, classes }) => looked && looked[0] >= Math.max(...Object.keys(classes).map((place) => +place.split(".")[0])) - 3 },
      { text: "A head that writes the name has to look at it first. Find a head that looks, from the last token, mostly at the right name, and choose it: it is put to zero, and the logit difference answers at once.", todo: "Take out a head without which the logit difference falls.", well: "It fell: that head was writing for the right name.", test: (lab) => lab.state.heads.length > 0 && now(lab) < was(lab) - 0.2 },
      { text: "Now uncover what is known. The heads called name movers look at the right name and raise its logit; negative name movers look there too, and lower it.", reveal: true, todo: "Have all name movers among the chosen heads; the legend below the grid chooses a whole class.", well: "That is the whole class.", test: (lab) => lab.all(MOVERS) },
      { text: (lab) => `Without the name movers the logit difference goes ${both(lab)}. The model has not fallen silent as one might expect. The next tour asks who has stepped in.` },
    ],
  },
  {
    id: "backups", title: "Take out the name movers, and see the backups",
    steps: [
      { text: "Here the name movers are out, where they act: at the last token.", set: (lab) => ({ ...PLAIN, heads: lab.of(MOVERS), at: lab.view ? [lab.view.pos.END] : [] }), reveal: true },
      { text: "Look at the backup name movers, one after the other. The line below the tokens says where a head looks now, and where it looked before.", todo: "Look at a backup name mover.", well: "Compare the two numbers: that is a head reacting to what others no longer say.", test: ({ looked, classes }) => looked && classes[looked.join(".")] === BACKUPS },
      { text: "Take the backups out as well.", todo: "Choose all backup name movers, too.", well: "With both classes out, the answer loses what was left of its support.", test: (lab) => lab.all(MOVERS) && lab.all(BACKUPS) },
      { text: (lab) => `With both classes out: ${both(lab)}. So the effect of one knock-out is not what that part does; it is what is left after the others have reacted.` },
    ],
  },
  {
    id: "inhibition", title: "Silence S-inhibition",
    steps: [
      { text: "Name movers would copy any name. Something tells them which one not to copy. Look from the last token at the S-inhibition heads: they look at the second mention of the subject.", set: PLAIN, reveal: true, todo: "Look at an S-inhibition head.", well: "It looks at the name that is named twice, from where the answer has to be given.", test: ({ looked, classes }) => looked && classes[looked.join(".")] === INHIBITION },
      { text: "Take what they say from the counterfactual run, in which the other name is the subject. They now warn of the wrong name.", todo: "Choose all S-inhibition heads, and “from the counterfactual”.", well: "They carry which name is to be left out.", test: (lab) => lab.all(INHIBITION) && lab.state.how === "other" },
      { text: (lab) => `The logit difference goes ${both(lab)}. Now look at a name mover: where does it look, and where did it look before?`, todo: "Look at a name mover.", well: "Its queries were changed, and nothing else.", test: ({ looked, classes }) => looked && classes[looked.join(".")] === MOVERS },
    ],
  },
  {
    id: "distractor", title: "Break it with a distractor",
    steps: [
      { text: "The circuit finds the name that is there twice and avoids it. What if both are? Here a clause repeats the right name.", set: { ...PLAIN, prompt: "When John and Mary went to the shops, where Mary had a good time, John gave the bag to", other: "When John and Mary went to the shops, where Mary had a good time, Mary gave the bag to" }, reveal: true },
      { text: "Remember the logit difference that stands beside the answer. Then choose one of the examples above, which lack the clause, and compare.", todo: "Choose a prompt without the clause.", well: "One name fewer, and a larger difference?", test: ({ state }) => state.prompt && !state.prompt.includes("where") },
      { text: "Write a sentence of your own in which both names occur twice, and see whether the model still answers.", todo: "Write a prompt that names both twice.", well: "Whatever it answered: a circuit predicts where it fails, and chapter 13 measures it.", test: ({ view }) => { const said = view?.words.map((word) => word.trim()) ?? []; return view?.answers?.every((name) => said.filter((word) => word === name).length > 1); } },
    ],
  },
  {
    id: "smallest", title: "Build the smallest circuit that still answers (a game)",
    steps: [
      { text: "All heads but those you choose are replaced by their mean over ABC prompts: they no longer know who is named twice. Choose as few heads as you can, so that the right name comes first again and at least half of the logit difference is back.", set: { ...PLAIN, only: true, how: "mean" }, reveal: true, todo: "Bring back half of the difference, with the right name on top.", well: "It answers. Now try with fewer heads.", test: (lab) => lab.state.only && lab.state.how === "mean" && lab.state.amount === 1 && !lab.state.at.length && !lab.state.stream.length && right(lab) && now(lab) >= 0.5 * was(lab),
        score: (lab) => { const share = lab.view?.diff && was(lab) > 0 ? Math.round((100 * now(lab)) / was(lab)) : 0; return `${lab.state.heads.length} heads; ${share} % of the logit difference${right(lab) ? "" : "; another word is on top"}.`.replace("-", "−"); } },
    ],
  },
];
