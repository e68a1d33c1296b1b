package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The size of a plot. The page scales it.
const (
	chartWidth  = vg.Length(520)
	chartHeight = vg.Length(260)
)

// ink is a colour of the page. Plots are drawn with the colours of a light page, and
// then refer to the page's variables, so that they change with it.
type ink struct {
	variable string
	light    color.RGBA
}

// The colours of data are those of Okabe and Ito ("Color Universal Design", 2008),
// which the colour-blind can tell apart; lines have different dashes as well.
var (
	inkText   = ink{"text", color.RGBA{0x1c, 0x1c, 0x21, 0xff}}
	inkGrid   = ink{"grid", color.RGBA{0xdd, 0xdd, 0xe1, 0xff}}
	inkFault  = ink{"fault", color.RGBA{0xf6, 0xe3, 0xe0, 0xff}}
	inkBlue   = ink{"blue", color.RGBA{0x00, 0x72, 0xb2, 0xff}}
	inkOrange = ink{"orange", color.RGBA{0xe6, 0x9f, 0x00, 0xff}}
	inkGreen  = ink{"green", color.RGBA{0x00, 0x9e, 0x73, 0xff}}
	inkRed    = ink{"red", color.RGBA{0xd5, 0x5e, 0x00, 0xff}}
	inkPurple = ink{"purple", color.RGBA{0xcc, 0x79, 0xa7, 0xff}}

	inks = []ink{inkText, inkGrid, inkFault, inkBlue, inkOrange, inkGreen, inkRed, inkPurple}
)

func (i ink) hex() string {
	return fmt.Sprintf("#%02X%02X%02X", i.light.R, i.light.G, i.light.B)
}

var (
	solid  []vg.Length
	dashed = []vg.Length{7, 3}
	dotted = []vg.Length{1.5, 2.5}
	broken = []vg.Length{9, 3, 2, 3}
	long   = []vg.Length{14, 3}
)

// Key is an entry of a legend. Legends stand beside the plots, so that they cover
// nothing.
type Key struct {
	Name, Colour string
	Dash         string // as in SVG
	Area         bool
}

// Figure is a plot of the page.
type Figure struct {
	Title, Caption string
	SVG            template.HTML
	Keys           []Key
}

// chart is a plot that is being made.
type chart struct {
	p      *plot.Plot
	x, y   axis
	figure Figure
}

// newChart makes a plot between two axes.
func newChart(title, caption string, x, y axis) *chart {
	c := &chart{p: plot.New(), x: x, y: y, figure: Figure{Title: title, Caption: caption}}
	c.p.BackgroundColor = nil
	c.p.X.Min, c.p.X.Max, c.p.Y.Min, c.p.Y.Max = x.min, x.max, y.min, y.max
	for _, a := range []struct {
		axis *plot.Axis
		is   axis
	}{{&c.p.X, x}, {&c.p.Y, y}} {
		a.axis.Label.Text, a.axis.Tick.Marker, a.axis.Padding = a.is.label, a.is, 0
		a.axis.LineStyle.Color, a.axis.Tick.LineStyle.Color = inkText.light, inkText.light
		a.axis.Tick.Length = 4
		for _, style := range []*draw.TextStyle{&a.axis.Label.TextStyle, &a.axis.Tick.Label} {
			style.Font = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 11)
			style.Color = inkText.light
		}
		a.axis.Label.Padding = 3
	}
	if x.log {
		c.p.X.Scale = plot.LogScale{}
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = inkGrid.light, inkGrid.light
	grid.Vertical.Width, grid.Horizontal.Width = 0.6, 0.6
	c.p.Add(grid)
	return c
}

// shade marks times on the x axis, behind what is added later.
func (c *chart) shade(name string, spans [][2]float64) {
	var drawn bool
	for _, s := range spans {
		from, to := max(s[0], c.p.X.Min), min(s[1], c.p.X.Max)
		if from > to {
			continue
		}
		// A moment is seen as well.
		if least := (c.p.X.Max - c.p.X.Min) / 250; to-from < least {
			from = min(from, c.p.X.Max-least)
			to = from + least
		}
		c.add(plotter.XYs{{X: from, Y: 0}, {X: from, Y: c.p.Y.Max}, {X: to, Y: c.p.Y.Max}, {X: to, Y: 0}}, inkFault)
		drawn = true
	}
	if drawn {
		c.figure.Keys = append(c.figure.Keys, Key{Name: name, Colour: inkFault.variable, Area: true})
	}
}

// line adds a line, with steps if what it shows jumps.
func (c *chart) line(name string, points plotter.XYs, colour ink, dash []vg.Length, steps bool) {
	c.stroke(name, points, colour, dash, 1.6, steps)
}

// thin adds one of many lines.
func (c *chart) thin(name string, points plotter.XYs, colour ink, dash []vg.Length) {
	c.stroke(name, points, colour, dash, 0.7, true)
}

func (c *chart) stroke(name string, points plotter.XYs, colour ink, dash []vg.Length, width vg.Length, steps bool) {
	if len(points) == 0 {
		return
	}
	l := &plotter.Line{XYs: points}
	if steps {
		l.StepStyle = plotter.PostStep
	}
	l.Color, l.Width, l.Dashes = colour.light, width, dash
	c.p.Add(l)
	if name != "" {
		text := ""
		for i, d := range dash {
			if i > 0 {
				text += " "
			}
			text += fmt.Sprint(d.Points())
		}
		c.figure.Keys = append(c.figure.Keys, Key{Name: name, Colour: colour.variable, Dash: text})
	}
}

// area adds what lies between two lines over the same places.
func (c *chart) area(name string, low, high plotter.XYs, colour ink) {
	ring := slices.Clone(low)
	for _, p := range slices.Backward(high) {
		ring = append(ring, p)
	}
	c.add(ring, colour)
	c.figure.Keys = append(c.figure.Keys, Key{Name: name, Colour: colour.variable, Area: true})
}

func (c *chart) add(ring plotter.XYs, colour ink) {
	c.p.Add(&plotter.Polygon{XYs: []plotter.XYs{ring}, Color: colour.light})
}

// render draws the plot: SVG without a header, a size of its own, a font or a colour,
// which the page has.
func (c *chart) render() (Figure, error) {
	// What was added may have moved the ends of the axes; what is beyond is cut off.
	c.p.X.Min, c.p.X.Max, c.p.Y.Min, c.p.Y.Max = c.x.min, c.x.max, c.y.min, c.y.max
	canvas := vgsvg.New(chartWidth, chartHeight)
	c.p.Draw(draw.Crop(draw.New(canvas), 2, -12, 2, -8))
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return Figure{}, err
	}
	svg := buf.String()
	svg = svg[strings.Index(svg, "<g"):]
	for _, i := range inks {
		svg = strings.ReplaceAll(svg, i.hex(), "var(--"+i.variable+")")
	}
	svg = strings.ReplaceAll(svg, "font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal;", "")
	c.figure.SVG = template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s" xmlns="http://www.w3.org/2000/svg">`+"\n",
		chartWidth.Points(), chartHeight.Points(), template.HTMLEscapeString(c.figure.Title)) + svg)
	return c.figure, nil
}
